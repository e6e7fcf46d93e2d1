import { type Plugin, type Upstream, UpstreamSocket, type Verdict, via } from '@tproxy/core'

/** The destination itself, as an upstream. */
const itself: Upstream = {
  name: 'itself',
  // Of nobody on this host.
  address: { host: '203.0.113.10', port: 9 },
  connect: () => Promise.reject(new Error('tunnel is asked')),
  tunnel: async ({ address: host, port }, signal) =>
    (await UpstreamSocket.connect({ host, port }, signal)).release(),
}

export const byItself: Verdict = via(itself)

/** Has all connections go on as ours: what is decided direct at once is left alone, and there is nothing to translate. */
export default function dialled(): Plugin {
  return function dialled() {
    return byItself
  }
}
