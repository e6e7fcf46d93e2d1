import { fixture } from './fixture.ts'
import type { Host, Program } from './host.ts'

/** One end of a tunnel: where, under which name, with which addresses (with prefix lengths). */
export interface TunnelEnd {
  readonly host: Host
  readonly name: string
  readonly addresses: readonly string[]
}

/**
 * Joins two hosts by a pair of tun devices, whose packets begin with the IP header, and a program that carries packets from
 * one to the other. (ipip and sit need modules that a kernel may lack.) Both vanish with the program.
 */
export async function joinByTunnel(
  left: TunnelEnd,
  right: TunnelEnd,
  carrier: 'wire' | 'shuffle' | 'delay' = 'wire',
  ...settings: readonly string[]
): Promise<Program> {
  const program = left.host.spawn(await fixture(carrier), [
    left.name,
    `/proc/${right.host.pid}/ns/net`,
    right.name,
    ...settings,
  ])
  await program.until(({ stdout }) => stdout.includes('ready'), 'both tun devices')
  for (const { host, name, addresses } of [left, right]) {
    // Without nodad an IPv6 address is unusable for its first second.
    const add = addresses.map((it) => `ip address add ${it} dev ${name} ${it.includes(':') ? 'nodad' : ''}`)
    await host.sh([...add, `ip link set ${name} up`].join('\n'))
  }
  return program
}

/** Of a thousand packets. */
export interface Disorder {
  readonly late: number
  readonly twice: number
  readonly lost: number
  /** In fragments, where they are long. */
  readonly cut: number
}

/** How a tunnel carried by `shuffle` treats packets from now on. Tells how many of each there were until now. */
export async function shuffle(tunnel: Program, { late, twice, lost, cut }: Disorder): Promise<Disorder> {
  const before = tunnel.events.length
  tunnel.child.stdin?.write(`${late} ${twice} ${lost} ${cut}\n`)
  await tunnel.until(({ events }) => events.length > before, 'the counts')
  return tunnel.events[before]
}
