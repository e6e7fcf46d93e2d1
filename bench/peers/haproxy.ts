import { file, nftablesTproxy, proxyPort, type Side, startPeer } from '../compare/side.ts'

// Its tuning guide: splice-auto lets it choose; a response of one byte is not worth a pipe.
const configuration = `global
  maxconn 7500
defaults
  mode tcp
  option splice-auto
  timeout connect 10s
  timeout client 10m
  timeout server 10m
listen bench
  bind 127.0.0.1:${proxyPort} transparent
  server origin *:0
`

export const haproxy: readonly Side[] = [
  {
    name: 'HAProxy',
    route: 'origin',
    apt: 'haproxy',
    setup: '`mode tcp`, `option splice-auto`, `bind … transparent`, `server origin *:0`; nftables TPROXY',
    steer: nftablesTproxy,
    start: (world, stack) =>
      startPeer(world, ['haproxy', '-db', '-f', file(stack, 'haproxy.cfg', configuration)]),
  },
]
