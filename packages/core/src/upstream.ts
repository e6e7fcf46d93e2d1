import type { Duplex } from 'node:stream'
import { type Endpoint, formatEndpoint } from './endpoint.ts'
import type { LazyStream } from './transport.ts'

/** Where an upstream is to connect to. */
export interface Destination extends Endpoint {
  /**
   * The host name that the program speaks of (see `Connection.peek`), for an upstream that takes names. It stands in place
   * of the address, which the program chose and the upstream does not learn; the port stays.
   */
  readonly name?: string
}

/** `example.org:443` when there is a name, else as {@link formatEndpoint}. */
export function formatDestination(destination: Destination): string {
  const { name, port } = destination
  return name === undefined ? formatEndpoint(destination) : `${name}:${port}`
}

/** A way to reach destinations: a SOCKS or HTTP proxy, a chain of them, or your own. */
export interface Upstream {
  /** Shown in logs and sessions, such as `socks5://192.0.2.1:1080`. Never contains a password. */
  readonly name: string

  /**
   * Where the first hop listens, when there is one. It lets tproxy recognise an upstream that runs on this host and
   * exempt that process from interception before the first connection, so that no loop can arise.
   */
  readonly address?: { readonly host: string; readonly port: number }

  /** Whether it wants host names: what a program says first is then peeked at. Default: what the proxy's `names` says. */
  readonly names?: boolean

  /**
   * Opens a tunnel to `destination`. The stream returned carries exactly the bytes of the connection: bytes that
   * arrived with the upstream's last handshake reply must still be readable from it. A `net.Socket` should have been
   * made with `allowHalfOpen: true`.
   *
   * Rejects when the upstream refuses or fails, or when `signal` aborts; whatever it had opened is closed by then.
   */
  connect(destination: Destination, signal: AbortSignal): Promise<Duplex>

  /**
   * The same without a stream, for an upstream that speaks with its proxy by an {@link UpstreamSocket}: what the kernel carries
   * never needs one. Asked instead of `connect` where `address` is known.
   */
  tunnel?(destination: Destination, signal: AbortSignal): Promise<LazyStream>
}
