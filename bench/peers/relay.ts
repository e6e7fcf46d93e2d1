// What the kernel's own TPROXY reaches with the plainest relay behind it.
import { compiled } from '../compare/compiled.ts'
import { iptablesTproxy, nftablesTproxy, proxyPort, type Side, startPeer } from '../compare/side.ts'

const program = compiled('relay')

const relay = (name: string, apt: string, steer: typeof iptablesTproxy): Side => ({
  name: `${name} TPROXY, plain relay`,
  route: 'origin',
  apt,
  setup: `${name} TPROXY; a C program of 60 lines that moves bytes by splice(2), two threads a connection (compare/relay.c)`,
  steer,
  start: (world) => startPeer(world, [program, `${proxyPort}`]),
})

export const relays: readonly Side[] = [
  relay('iptables', 'iptables', iptablesTproxy),
  relay('nftables', 'nftables', nftablesTproxy),
]
