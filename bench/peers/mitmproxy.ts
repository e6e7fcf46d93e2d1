import { proxyPort, redirect, type Side, startPeer } from '../compare/side.ts'

/** Keeps its certificates, which it makes the first time. */
const directory = new URL('../compare/dist/mitmproxy', import.meta.url).pathname

export const mitmproxy: readonly Side[] = [
  {
    name: 'mitmproxy',
    route: 'origin',
    apt: 'mitmproxy',
    setup:
      '`mitmdump --mode transparent --ignore-hosts .*`: it hands the bytes on without looking at or keeping them; nftables REDIRECT',
    steer: redirect,
    start: (world) =>
      startPeer(world, [
        ...['mitmdump', '-q', '--mode', 'transparent', '--listen-port', `${proxyPort}`],
        ...['--ignore-hosts', '.*', '--set', `confdir=${directory}`],
      ]),
  },
]
