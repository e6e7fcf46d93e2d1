import { file, proxyPort, type Route, redirect, type Side, startPeer, upstream } from '../compare/side.ts'

const outbounds: Partial<Record<Route, object>> = {
  origin: { protocol: 'freedom' },
  socks: { protocol: 'socks', settings: { servers: [{ address: upstream, port: 1080 }] } },
  http: { protocol: 'http', settings: { servers: [{ address: upstream, port: 3128 }] } },
}

export const v2ray: readonly Side[] = Object.entries(outbounds).map(([route, outbound]) => ({
  name: 'v2ray',
  route: route as Route,
  apt: 'v2ray',
  setup: `dokodemo-door with \`followRedirect\`, no sniffing, no log, \`uplinkOnly\` and \`downlinkOnly\` 0; outbound \`${(outbound as { protocol: string }).protocol}\`; nftables REDIRECT`,
  steer: redirect,
  start(world, stack) {
    const inbound = {
      protocol: 'dokodemo-door',
      listen: '127.0.0.1',
      port: proxyPort,
      settings: { network: 'tcp', followRedirect: true },
      streamSettings: { sockopt: { tproxy: 'redirect' } },
    }
    // It would wait a second after one side has closed before it closes the other.
    const policy = { levels: { 0: { uplinkOnly: 0, downlinkOnly: 0 } } }
    const configuration = { log: { loglevel: 'none' }, policy, inbounds: [inbound], outbounds: [outbound] }
    return startPeer(world, ['v2ray', '-config', file(stack, 'config.json', JSON.stringify(configuration))])
  },
}))
