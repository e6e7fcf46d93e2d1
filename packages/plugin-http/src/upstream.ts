import type { ConnectionOptions } from 'node:tls'
import { endpoint, TproxyError, type Upstream } from '@tproxy/core'
import { failure, type Way } from './dial.ts'
import { forwarder } from './forward.ts'
import { plain } from './plain.ts'
import { parseProxy } from './proxy-url.ts'
import type { Authority } from './request-head.ts'
import { tunnel } from './tunnel.ts'

/** How an upstream behaves, apart from where it is. */
export interface HttpUpstreamOptions {
  /** Milliseconds for connecting to the proxy, TLS and CONNECT together. Default 10 000. */
  readonly timeoutMs?: number
  /**
   * Whether tunnels are asked for by the host name that a program speaks of, instead of the address. Default: what the
   * `names` of the proxy says. For plain HTTP see `authority`.
   */
  readonly names?: boolean
  /**
   * Destination ports where plain HTTP is forwarded request by request instead of tunnelled: many proxies refuse
   * CONNECT to port 80. What is not HTTP/1.x there is tunnelled all the same. Default `[80]`.
   */
  readonly plainPorts?: readonly number[]
  /**
   * Which host a forwarded request names to the proxy; the port is always the original destination's.
   *
   * - `'host'` (default): the name in the client's Host header, else the address; an address there or `localhost` is no
   *   name. A proxy replaces Host by what the request names (RFC 9112, 3.2.2), so only this reaches sites that share an
   *   address. The header is a claim: through the proxy a client can reach any name on that port, whatever address it
   *   connected to.
   * - `'destination'`: the original destination's address, a fact. Strict, and wrong for sites that share an address.
   */
  readonly authority?: Authority
  /** For https proxies: `ca`, `cert`, `key` and the like. Certificates are verified unless this says otherwise. */
  readonly tls?: ConnectionOptions
}

/**
 * An upstream that reaches destinations through an HTTP proxy: with CONNECT, and on `plainPorts` by forwarding.
 *
 * `url` is `http://[user:password@]host[:port]`, or `https://` when the way to the proxy is TLS. IPv6 addresses stand in
 * brackets; the default ports are 80 and 443; `host:3128` means http. User and password are percent-decoded and sent as
 * Basic authentication (RFC 7617).
 *
 * Throws `E_OPTION` when an option is unusable. `connect` rejects with `E_UPSTREAM`, naming the step and the cause; on
 * `plainPorts`, where the proxy is not asked before the client has spoken, the stream is destroyed with that error.
 */
export function httpUpstream(
  url: string,
  { timeoutMs = 10_000, names, plainPorts = [80], authority = 'host', tls = {} }: HttpUpstreamOptions = {},
): Upstream {
  const proxy = parseProxy(url)
  if (!Number.isInteger(timeoutMs) || timeoutMs < 1 || timeoutMs > 2_147_483_647)
    throw new TproxyError('E_OPTION', `timeoutMs is ${timeoutMs}`, { hint: 'give whole milliseconds from 1' })
  for (const port of plainPorts)
    if (!Number.isInteger(port) || port < 1 || port > 65_535)
      throw new TproxyError('E_OPTION', `plainPorts has ${port}`, { hint: 'ports are 1 to 65535' })
  if (authority !== 'host' && authority !== 'destination')
    throw new TproxyError('E_OPTION', 'authority is unknown', { hint: "use 'host' or 'destination'" })

  const way: Way = { proxy, timeoutMs, tls }
  const forward = forwarder(way, authority)
  return {
    name: proxy.name,
    address: { host: proxy.host, port: proxy.port },
    ...(names !== undefined && { names }),
    async connect({ address, port, name }, signal) {
      const destination = { ...endpoint(address, port), ...(name !== undefined && { name }) }
      if (!plainPorts.includes(port)) return tunnel(way, destination, signal)
      if (signal.aborted) throw failure(`connect to ${proxy.name}`, new Error('aborted'))
      return plain(way, destination, forward)
    },
  }
}
