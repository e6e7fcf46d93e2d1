import type { IncomingMessage } from 'node:http'
import type { Endpoint } from '@tproxy/core'
import { isChunked } from './framing.ts'

/** Which name a plain request carries to the proxy: the client's Host header, or the original destination. */
export type Authority = 'host' | 'destination'

/** A request as the proxy gets it. */
export interface RequestHead {
  /** In absolute form (RFC 9112, 3.2.2). */
  readonly target: string
  /** Spelled as the client spelled them; repeated ones as arrays. */
  readonly headers: Readonly<Record<string, string | string[]>>
}

/**
 * Turns a request meant for an origin server into one for a proxy, or returns `undefined` when it names another scheme or
 * has no path that can follow a host.
 *
 * The port is always the original destination's, and so is the host unless the policy is `host` and the client gave a
 * name: only with the name can a proxy choose between the sites that share an address. A proxy takes the
 * name from the target and replaces Host by it (RFC 9112, 3.2.2), so both say the same.
 */
export function requestHead(
  { method, url = '/', rawHeaders }: Pick<IncomingMessage, 'method' | 'url' | 'rawHeaders'>,
  destination: Endpoint,
  policy: Authority,
): RequestHead | undefined {
  const headers = pairs(rawHeaders)
  // An absolute target is legal towards an origin server, and then stands above Host (RFC 9112, 3.2.2).
  const absolute = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(.*)$/is.exec(url)
  if (absolute && absolute[1]?.toLowerCase() !== 'http') return undefined
  const claims = absolute?.[2] === undefined ? valuesOf(headers, 'host') : [absolute[2]]
  const claim = policy === 'host' && claims.length === 1 ? nameOf(claims[0] ?? '') : undefined
  const address = destination.family === 6 ? `[${destination.address}]` : destination.address
  const authority = `${claim ?? address}${destination.port === 80 ? '' : `:${destination.port}`}`

  const path = absolute ? absolute[3] || '/' : url
  // A request about the server itself has no path in absolute form (RFC 9112, 3.2.4).
  const aboutServer = method === 'OPTIONS' && path === '*'
  // node's parser lets `*@evil.example:22/` pass, which would make the authority another one.
  if (!aboutServer && !/^[/?]/.test(path)) return undefined
  return {
    target: `http://${authority}${aboutServer ? '' : path}`,
    headers: { Host: authority, ...endToEnd(headers) },
  }
}

/**
 * The name in a Host header, without its port, when it can stand in a URL. Addresses and `localhost` are none: the former
 * could only say the destination or something else, and the latter the proxy would take for itself. Nor is what ends in a
 * number: resolvers take `2130706433` and `127.1` for addresses.
 */
function nameOf(value: string): string | undefined {
  const [, name = ''] = /^([a-z0-9._~-]{1,255})(?::\d*)?$/i.exec(value.trim()) ?? []
  // RFC 6761, 6.3: and all names below it.
  const [, last = ''] = /([^.]*)\.?$/.exec(name) ?? []
  return last === '' || /^(?:localhost|\d+|0x[0-9a-f]*)$/i.test(last) ? undefined : name
}

// RFC 9110, 7.6.1, and what proxies have always dropped besides; HTTP2-Settings belongs to an Upgrade (RFC 7540, 3.2.1).
// Expect is sent again by the forwarder.
const hopByHop = new Set(
  'connection keep-alive proxy-connection proxy-authorization te upgrade http2-settings host expect'.split(
    ' ',
  ),
)

function endToEnd(headers: readonly (readonly [string, string])[]): Record<string, string | string[]> {
  const dropped = new Set(hopByHop)
  for (const value of valuesOf(headers, 'connection'))
    for (const name of value.split(',')) dropped.add(name.trim().toLowerCase())
  // The framing is not the client's to hide.
  dropped.delete('content-length')
  dropped.delete('transfer-encoding')
  // Where no chunks follow there are no trailers, and node throws ERR_HTTP_TRAILER_INVALID (24.21).
  if (!isChunked(valuesOf(headers, 'transfer-encoding'))) dropped.add('trailer')

  const kept = new Map<string, { name: string; values: string[] }>()
  for (const [name, value] of headers) {
    const key = name.toLowerCase()
    if (dropped.has(key)) continue
    const same = kept.get(key)
    if (same) same.values.push(value)
    else kept.set(key, { name, values: [value] })
  }
  return Object.fromEntries(
    [...kept.values()].map(({ name, values }) => [name, values.length === 1 ? (values[0] ?? '') : values]),
  )
}

function pairs(rawHeaders: readonly string[]): readonly (readonly [string, string])[] {
  return Array.from({ length: rawHeaders.length / 2 }, (_, index) => [
    rawHeaders[2 * index] ?? '',
    rawHeaders[2 * index + 1] ?? '',
  ])
}

function valuesOf(headers: readonly (readonly [string, string])[], wanted: string): string[] {
  return headers.filter(([name]) => name.toLowerCase() === wanted).map(([, value]) => value)
}

/** The head of a request that node has already parsed, to be read again, but for some headers. */
export function replay(
  { method, url, httpVersion, rawHeaders }: IncomingMessage,
  without: readonly string[],
): Buffer {
  const lines = pairs(rawHeaders)
    .filter(([name]) => !without.includes(name.toLowerCase()))
    .map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.from(`${method} ${url} HTTP/${httpVersion}\r\n${lines.join('')}\r\n`, 'latin1')
}
