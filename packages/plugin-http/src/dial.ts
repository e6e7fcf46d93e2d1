import { connect, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { reason, TproxyError } from '@tproxy/core'
import type { HttpProxy } from './proxy-url.ts'

/** Where an upstream's proxy is and how it is reached. */
export interface Way {
  readonly proxy: HttpProxy
  readonly timeoutMs: number
  readonly tls: ConnectionOptions
}

/**
 * Starts a connection to the proxy, over TLS for https, and returns the socket at once: both http.request and http.Agent
 * want it before it is connected. It is destroyed, with an error, when it is not up within the deadline.
 *
 * A tunnel's socket must allow half-open connections; one for requests is of no use once the proxy has ended it.
 */
export function dial({ proxy, timeoutMs, tls }: Way, { allowHalfOpen }: { allowHalfOpen: boolean }): Socket {
  const options = {
    host: proxy.host,
    port: proxy.port,
    allowHalfOpen,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: 30_000,
  }
  // SNI carries names only (RFC 6066, 3); the certificate is checked against the host either way.
  const servername = isIP(proxy.host) ? {} : { servername: proxy.host }
  const socket: Socket = proxy.secure
    ? connectTls({ ALPNProtocols: ['http/1.1'], ...servername, ...tls, ...options })
    : connect(options)
  // On TLS node's own throws ERR_INVALID_HANDLE_TYPE. Without close_notify a plain end, too, shows as a truncation.
  if (proxy.secure) socket.resetAndDestroy = () => socket.destroy()
  // It stays for good: an error between two owners of the socket must not be an uncaught exception.
  socket.on('error', () => {})
  const timer = setTimeout(() => socket.destroy(new Error(`no connection within ${timeoutMs} ms`)), timeoutMs)
  const disarm = (): void => clearTimeout(timer)
  socket.once(proxy.secure ? 'secureConnect' : 'connect', disarm).once('close', disarm)
  return socket
}

/**
 * The error for a step that failed, such as `connect to http://192.0.2.1:3128: connect ECONNREFUSED 192.0.2.1:3128`.
 * Of the cause it keeps message and code: node attaches whole packets to parse errors, with the client's cookies.
 */
export function failure(step: string, error: unknown, hint?: string): TproxyError {
  if (error instanceof TproxyError) return error
  const cause = new Error(reason(error))
  if (error instanceof Error && 'code' in error) Object.assign(cause, { code: error.code })
  const message = `${step}: ${cause.message}`
  return new TproxyError('E_UPSTREAM', message, hint === undefined ? { cause } : { cause, hint })
}

/** What a 407 asks for; `undefined` for other answers. */
export function credentialsHint(status: number | undefined, proxy: HttpProxy): string | undefined {
  if (status !== 407) return undefined
  return proxy.authorization === undefined
    ? 'the proxy wants credentials: write http://user:password@host:port'
    : 'the proxy does not accept the user name and password'
}
