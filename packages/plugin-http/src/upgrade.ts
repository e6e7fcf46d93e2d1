import type { IncomingMessage } from 'node:http'

/**
 * Whether a request that asks to switch protocols has to go through a tunnel, because it makes no sense without the switch.
 *
 * What may be ignored is (RFC 9110, 7.8): HTTP/2 without TLS, which Java's HttpClient and curl --http2 offer, and which
 * would cost them the request where a proxy refuses CONNECT to port 80.
 *
 * node's own `shouldUpgradeCallback` will not do: it came with 24.9, and where it declines, the parser stops at the end of
 * the message all the same, and node drops what else the chunk held (24.21), such as the next request.
 */
export function wantsTunnel({ method, headers: { upgrade = '' } }: IncomingMessage): boolean {
  return method === 'CONNECT' || upgrade.split(',').some((protocol) => !/^\s*(?:h2c?)?\s*$/i.test(protocol))
}
