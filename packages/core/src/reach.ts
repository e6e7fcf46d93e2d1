import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Connection } from './connection.ts'
import { formatEndpoint } from './endpoint.ts'
import { GaveUp, reason, TproxyError } from './errors.ts'
import { asLazy } from './lazy-stream.ts'
import type { Session } from './session.ts'
import type { LazyStream, Transport } from './transport.ts'
import type { Destination, Upstream } from './upstream.ts'
import type { Verdict } from './verdict.ts'

export interface ReachOptions {
  readonly transport: Transport
  /** Whether upstreams that do not say themselves are told host names. */
  readonly names: boolean
  /** For all of it: what a plugin's upstream does, too. */
  readonly connectMs: number
  readonly warn: (message: string) => void
}

/** Reaches the other side of a decided connection within one deadline; what arrives later is reset. */
export function reach(
  session: Session,
  verdict: Exclude<Verdict, { kind: 'drop' }>,
  options: ReachOptions,
): LazyStream | Promise<LazyStream> {
  const { connection } = session
  const late = new AbortController()
  const attempt =
    verdict.kind === 'via'
      ? reachVia(connection, verdict.upstream, late.signal, options)
      : connection.accepted.direct(late.signal, verdict.transform !== undefined)
  if (!(attempt instanceof Promise)) return asLazy(attempt)
  const target = verdict.kind === 'via' ? verdict.upstream.name : formatEndpoint(connection.destination)
  return inTime(attempt, { session, late, target, connectMs: options.connectMs })
}

async function inTime(
  attempt: Promise<Duplex | LazyStream>,
  how: { session: Session; late: AbortController; target: string; connectMs: number },
): Promise<LazyStream> {
  const { session, late, target, connectMs } = how
  const { promise: given, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    giveUp(new TproxyError('E_TIMEOUT', `connect to ${target}: no answer within ${connectMs} ms`))
  }, connectMs)
  const giveUp = (error: Error) => {
    late.abort(error)
    reject(error)
  }
  session.onClose(() => giveUp(new TproxyError('E_STATE', 'closing')))
  session.connection.whenGone(() => giveUp(new GaveUp()))
  // An upstream that ignores the signal must not leave its stream behind.
  attempt.then((stream) => late.signal.aborted && asLazy(stream).reset()).catch(() => {})
  try {
    return asLazy(await Promise.race([attempt, given]))
  } finally {
    clearTimeout(timer)
  }
}

async function reachVia(
  connection: Connection,
  upstream: Upstream,
  signal: AbortSignal,
  { transport, names, warn }: ReachOptions,
): Promise<Duplex | LazyStream> {
  if (upstream.address !== undefined) await transport.exempt?.(upstream.address)
  const destination = await destinationOf(connection, upstream, names)
  if (upstream.address !== undefined && upstream.tunnel !== undefined)
    return upstream.tunnel(destination, signal)
  const stream = await upstream.connect(destination, signal)
  // It may break off before anybody carries it, who then finds it closed.
  stream.on('error', () => {})
  // One that does not say where it listens shows it here. Its first connection may have come back to us by now, and
  // ends with this; the next ones do not come.
  if (upstream.address === undefined && stream instanceof Socket && stream.remoteAddress !== undefined)
    await transport
      .exempt?.({ host: stream.remoteAddress, port: stream.remotePort ?? 0 })
      .catch((error) => warn(reason(error)))
  return stream
}

async function destinationOf(
  connection: Connection,
  upstream: Upstream,
  names: boolean,
): Promise<Destination> {
  const name = (upstream.names ?? names) ? (await connection.look()).name : undefined
  // The upstream would take it for itself (RFC 6761, 6.3): nobody meant that who connects to another address.
  if (name === undefined || /(^|\.)localhost$/.test(name)) return connection.destination
  return { ...connection.destination, name }
}
