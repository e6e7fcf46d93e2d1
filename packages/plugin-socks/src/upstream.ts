import {
  type Destination,
  endpoint,
  formatDestination,
  formatEndpoint,
  type LazyStream,
  reason,
  TproxyError,
  type Upstream,
  UpstreamSocket,
} from '@tproxy/core'
import { handshake } from './handshake.ts'
import { parseChain, type SocksProxy } from './proxy-url.ts'

/** How an upstream behaves, apart from where it is. */
export interface SocksUpstreamOptions {
  /** Milliseconds for connecting and all handshakes of a chain together. Default 10 000. */
  readonly timeoutMs?: number
  /**
   * Whether the last proxy is told the host name that a program speaks of, and resolves it, instead of the address: SOCKS5
   * and 4a. Default: what the `names` of the proxy says.
   */
  readonly names?: boolean
}

/**
 * An upstream that reaches destinations through a SOCKS proxy, or through several in a row: SOCKS5 (RFC 1928, user and
 * password by RFC 1929), SOCKS4 and 4a.
 *
 * `url` is `socks5://[user:password@]host[:port]`, or `socks4://`; `socks://`, `socks5h://` and `socks4a://` are taken
 * as well. IPv6 addresses stand in brackets, the default port is 1080, user and password are percent-decoded. A chain
 * is an array, or one string separated by commas: the first is nearest to us.
 *
 * Throws `E_OPTION` when a URL is unusable. `connect` rejects with `E_UPSTREAM`, naming the hop, the step and the cause.
 */
export function socksUpstream(
  url: string | readonly string[],
  { timeoutMs = 10_000, names }: SocksUpstreamOptions = {},
): Upstream {
  const hops = parseChain(url)
  if (!Number.isInteger(timeoutMs) || timeoutMs < 1 || timeoutMs > 2_147_483_647)
    throw new TproxyError('E_OPTION', `timeoutMs is ${timeoutMs}`, { hint: 'give whole milliseconds from 1' })
  const [{ host, port }] = hops
  const tunnel: Upstream['tunnel'] = ({ address, port, name }, signal) =>
    open(hops, { ...endpoint(address, port), ...(name !== undefined && { name }) }, timeoutMs, signal)
  return {
    name: hops.map((hop) => hop.name).join(' → '),
    address: { host, port },
    ...(names !== undefined && { names }),
    tunnel,
    connect: async (destination, signal) => (await tunnel(destination, signal)).stream,
  }
}

async function open(
  hops: readonly [SocksProxy, ...SocksProxy[]],
  destination: Destination,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<LazyStream> {
  let step = `connect to ${hops[0].name}`
  const last = hops.at(-1) ?? hops[0]
  if (last.version === 4 && destination.family === 6 && destination.name === undefined)
    throw new TproxyError(
      'E_UPSTREAM',
      `${last.name} cannot reach ${formatEndpoint(destination)}: SOCKS4 has no IPv6`,
      {
        hint: 'use a SOCKS5 proxy for IPv6 destinations',
      },
    )
  const given = new AbortController()
  let socket: UpstreamSocket | undefined
  const giveUp = (why: string): void => {
    given.abort(new Error(why))
    // Who waits for an answer hears of it.
    socket?.close()
  }
  const aborted = (): void => giveUp('aborted')
  if (signal.aborted) aborted()
  signal.addEventListener('abort', aborted)
  const timer = setTimeout(() => giveUp(`no answer within ${timeoutMs} ms`), timeoutMs)
  try {
    socket = await UpstreamSocket.connect(hops[0], given.signal)
    // Who gave up while it was handed over did not find it yet.
    given.signal.throwIfAborted()
    for (const [index, hop] of hops.entries()) {
      const next = hops[index + 1]
      const [host, port] = next
        ? [next.host, next.port]
        : [destination.name ?? destination.address, destination.port]
      const where = hops.length > 1 ? `hop ${index + 1}: ` : ''
      const goal = next ? next.name : formatDestination(destination)
      step = `${where}SOCKS${hop.version} handshake with ${hop.name} for ${goal}`
      await handshake(socket, hop, host, port)
    }
    return socket.release()
  } catch (error) {
    socket?.close()
    const cause = given.signal.aborted ? given.signal.reason : error
    throw new TproxyError('E_UPSTREAM', `${step}: ${reason(cause)}`, { cause })
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', aborted)
  }
}
