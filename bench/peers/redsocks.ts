import { file, proxyPort, type Route, redirect, type Side, startPeer, upstream } from '../compare/side.ts'

// Its default of 128 connections is below what is measured.
const configuration = (type: string, port: number) => `base {
  log = "stderr"; log_info = off; daemon = off; redirector = iptables; redsocks_conn_max = 9000;
}
redsocks {
  local_ip = 127.0.0.1; local_port = ${proxyPort}; ip = ${upstream}; port = ${port}; type = ${type};
}
`

const redsocks_ = (route: Route, type: string, port: number): Side => ({
  name: 'redsocks',
  route,
  apt: 'redsocks',
  setup: `\`type = ${type}\`, \`redsocks_conn_max = 9000\`; nftables REDIRECT`,
  steer: redirect,
  start: (world, stack) =>
    startPeer(world, ['redsocks', '-c', file(stack, 'redsocks.conf', configuration(type, port))]),
})

export const redsocks: readonly Side[] = [
  redsocks_('socks', 'socks5', 1080),
  redsocks_('http', 'http-connect', 3128),
]
