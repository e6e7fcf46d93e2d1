import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Observable, Subject, type Subscription, throwError } from 'rxjs'
import { Connection } from './connection.ts'
import { formatEndpoint } from './endpoint.ts'
import { reason, TproxyError } from './errors.ts'
import { type FastpathState, type Limits, limits, type Timeouts } from './options.ts'
import { Relay, reset } from './relay.ts'
import { checkRemember } from './remember.ts'
import type { Rules } from './rules/control.ts'
import { Session } from './session.ts'
import type { TraceStep, TraceTarget } from './trace.ts'
import type { Accepted, Adopted, Memories, Transport } from './transport.ts'
import type { Destination, Upstream } from './upstream.ts'
import type { Transforms, Verdict } from './verdict.ts'

/** Of silence, after which the kernel asks whether an upstream is still there. */
const keepAliveMs = 60_000

/**
 * Connections taken from a {@link Transport}, held until somebody decides, and carried as decided. Close it to undo
 * everything.
 */
export class Interception implements AsyncDisposable {
  /**
   * Accepted connections, not yet decided. Hot: who subscribes late misses earlier ones. It never errors and completes on
   * {@link close}. A connection that nobody settles within `timeouts.decisionMs` is reset.
   */
  readonly connections: Observable<Connection>
  /** Decided connections, each when it is decided; `session.ended` tells the end. Hot; completes on {@link close}. */
  readonly sessions: Observable<Session>
  /** Problems that cost one connection, or nothing, as messages for people. Hot. */
  readonly warnings: Observable<string>
  readonly limits: Limits

  readonly #transport: Transport
  readonly #names: boolean
  readonly #connections = new Subject<Connection>()
  readonly #sessions = new Subject<Session>()
  readonly #warnings = new Subject<string>()
  readonly #undecided = new Set<Connection>()
  readonly #running = new Set<Session>()
  readonly #taking: Subscription
  readonly #subscriptions: (Subscription | undefined)[]
  #lastId = 0
  #closing: Promise<void> | undefined

  /** `names`: whether upstreams that do not say themselves are told host names. */
  constructor(transport: Transport, timeouts?: Timeouts, { names = false }: { names?: boolean } = {}) {
    this.#transport = transport
    this.#names = names
    this.limits = limits(timeouts)
    this.connections = this.#connections.asObservable()
    this.sessions = this.#sessions.asObservable()
    this.warnings = this.#warnings.asObservable()
    this.#taking = transport.accepted.subscribe((accepted) => this.#hold(accepted))
    this.#subscriptions = [
      transport.warnings?.subscribe(this.#warnings),
      transport.outdated?.subscribe((isOutdated) => {
        for (const session of this.#running) if (isOutdated(session.connection.accepted)) void session.close()
      }),
    ]
  }

  /** The rules in force; undefined for a transport that has none. They can be read and replaced. */
  get rules(): Rules | undefined {
    return this.#transport.rules
  }

  /** Connections that an earlier process left to the kernel, as this one found them; see `keepSpliced`. */
  get adopted(): readonly Adopted[] {
    return this.#transport.adopted ?? []
  }

  /** Which reads skip the network stack, and why none do although it was asked for. */
  get fastpath(): FastpathState {
    return this.#transport.fastpath ?? { mode: 'off' }
  }

  /** What the kernel remembers of verdicts, see {@link Remember}; undefined for a transport that cannot. */
  get memories(): Memories | undefined {
    return this.#transport.memories
  }

  /**
   * What the kernel counted so far: packets, or connections of the fastpath, by program (`steering`, `splice`, `fastpath`) and
   * by the reasons of contract.h.
   */
  counters(): Readonly<Record<string, Readonly<Record<string, bigint>>>> {
    return this.#transport.counters?.() ?? {}
  }

  /**
   * What our programs in the kernel do with each packet from and to a destination, in order, while subscribed to; one
   * subscriber at a time (`E_STATE`); it completes on {@link close}. Each hook costs each packet some 0.14 µs more meanwhile, also of other destinations.
   * Errors with `E_OPTION` for what is no address, and `E_STATE` for a transport that cannot.
   */
  trace(target: TraceTarget): Observable<TraceStep> {
    return (
      this.#transport.trace?.(target) ??
      throwError(() => new TproxyError('E_STATE', 'trace: this transport does not tell'))
    )
  }

  /** How many sessions last. */
  get active(): number {
    return this.#running.size
  }

  /** Sessions that last, the oldest first. */
  get running(): ReadonlySet<Session> {
    return this.#running
  }

  /** How many sessions last by who carries them: the kernel, or this process, also those not yet connected. */
  get carried(): { readonly splice: number; readonly relay: number } {
    let splice = 0
    for (const session of this.#running) if (session.carried === 'splice') splice++
    return { splice, relay: this.#running.size - splice }
  }

  /**
   * Stops intercepting, leaves spliced sessions to the kernel with `keepSpliced`, lets the others finish for
   * `timeouts.drainMs` (or `drainMs`), also those that wait for a decision or to be accepted, resets the rest, and undoes all
   * that was set up. Idempotent; a second call with a shorter time does not shorten the first.
   */
  close(options: { drainMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(options.drainMs ?? this.limits.drainMs)
    return this.#closing
  }

  /** @internal */
  warn(message: string): void {
    this.#warnings.next(message)
  }

  /** Resets all sessions now, such as when a second signal says not to wait. */
  abort(): void {
    for (const connection of this.#undecided) connection.reset()
    for (const session of this.#running) void session.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(drainMs: number): Promise<void> {
    this.#transport.stop()
    for (const session of this.#running) session.leave()
    if (drainMs > 0) {
      const { promise: deadline, resolve } = Promise.withResolvers<void>()
      const timer = setTimeout(resolve, drainMs)
      await Promise.race([this.#drain(), deadline])
      clearTimeout(timer)
      for (const session of this.#running) session.leave()
    }
    // What comes from now on ends with the transport.
    this.#taking.unsubscribe()
    this.abort()
    await Promise.all([...this.#running].map((session) => session.ended))
    await this.#transport.close()
    for (const subscription of this.#subscriptions) subscription?.unsubscribe()
    this.#connections.complete()
    this.#sessions.complete()
    this.#warnings.complete()
  }

  /** Resolves when nothing is left, also of what was connected by now and is still to be accepted. */
  async #drain(): Promise<void> {
    // It is, when events were polled for once more. We may be called by one of those that the current turn found.
    await nextTurn()
    await nextTurn()
    for (;;) {
      const undecided = [...this.#undecided].filter(({ settled }) => !settled)
      const left: Promise<unknown>[] = [
        ...[...this.#running].map((session) => session.ended),
        ...undecided.map(({ session, socket }) => Promise.race([session, closed(socket)])),
      ]
      if (left.length === 0) return
      await Promise.all(left)
    }
  }

  #hold(accepted: Accepted): void {
    const { socket } = accepted
    // The socket is paused and unread; an error that comes meanwhile shows again when it is carried.
    socket.on('error', () => {})
    const connection = new Connection(++this.#lastId, accepted, this.#settle)
    this.#undecided.add(connection)
    const deadline = setTimeout(() => {
      if (connection.settled) return
      this.#warnings.next(
        `nobody decided ${formatEndpoint(connection.destination)} within ${this.limits.decisionMs} ms: reset`,
      )
      connection.reset()
    }, this.limits.decisionMs)
    socket.once('close', () => {
      clearTimeout(deadline)
      this.#undecided.delete(connection)
    })
    this.#connections.next(connection)
  }

  readonly #settle = async (
    connection: Connection,
    verdict: Verdict,
    plugin: string | undefined,
    failure: Error | undefined,
  ): Promise<Session> => {
    this.#undecided.delete(connection)
    const session = new Session(connection, verdict, plugin)
    this.#running.add(session)
    void session.ended.then(() => this.#running.delete(session))
    this.#remember(session)
    connection.became(session)
    this.#sessions.next(session)
    if (verdict.kind === 'drop') drop(session, verdict.reset, failure)
    else await this.#carry(session, verdict)
    return session
  }

  /** Before anybody hears of the session, for the program may connect again as soon as it is answered. */
  #remember(session: Session): void {
    const { connection, verdict } = session
    if (verdict.kind === 'via' || verdict.remember === undefined) return
    const { accepted, destination } = connection
    const what = `remember the verdict for ${formatEndpoint(destination)}`
    try {
      checkRemember(verdict.remember, verdict.kind === 'direct' ? verdict.transform : undefined)
      if (connection.peeked !== undefined && verdict.remember.whateverName !== true) {
        this.warn(
          `${what}: it was peeked at, and the kernel does not see names (say whateverName to do it anyway)`,
        )
        return
      }
      session.isRemembered(accepted.remember?.(verdict.kind, verdict.remember))
    } catch (error) {
      this.warn(`${what}: ${reason(error)}`)
    }
  }

  async #carry(session: Session, verdict: Exclude<Verdict, { kind: 'drop' }>): Promise<void> {
    const { connection, closing } = session
    let upstream: Duplex | undefined
    let transforms: Transforms | undefined
    try {
      upstream = await this.#connect(connection, verdict, closing)
      transforms = verdict.transform?.(connection)
    } catch (cause) {
      connection.socket.resetAndDestroy()
      if (upstream !== undefined) reset(upstream)
      const error = cause instanceof Error ? cause : new Error(String(cause))
      session.finish(closing.aborted ? { how: 'aborted' } : { how: 'failed', error })
      return
    }
    if (upstream instanceof Socket) upstream.setKeepAlive(true, keepAliveMs).setNoDelay(true)
    const { idleMs, halfClosedMs } = this.limits
    let relay: Relay | undefined
    const splice =
      transforms !== undefined
        ? 'a plugin reads the bytes'
        : this.#transport.splice?.(connection.accepted, upstream, {
            idleMs,
            halfClosedMs,
            silent: () => {
              session.spliced()
              relay?.handOver()
              relay = undefined
              connection.letGo()
            },
            ended: (end) => session.finish(end),
          })
    if (splice !== undefined) session.joined(splice)
    const carried = typeof splice === 'object' ? splice : undefined
    closing.addEventListener('abort', () => {
      if (carried !== undefined && session.carried === 'splice') carried.abort({ how: 'aborted' })
      else relay?.abort({ how: 'aborted' })
    })
    if (carried?.settled) return
    if (carried === undefined) connection.accepted.accelerate?.()
    relay = new Relay(connection.socket, upstream, {
      idleMs,
      halfClosedMs,
      bytes: session.relayed,
      ...(transforms && { transforms }),
      clientEnded: () => connection.accepted.closeInOrder?.(),
    })
    void relay.ended.then((end) => {
      carried?.release()
      session.finish(end)
    })
  }

  /** Reaches the other side within one deadline; whatever arrives later is reset. */
  async #connect(
    connection: Connection,
    verdict: Exclude<Verdict, { kind: 'drop' }>,
    closing: AbortSignal,
  ): Promise<Duplex> {
    const { connectMs } = this.limits
    const late = new AbortController()
    const { promise: given, reject } = Promise.withResolvers<never>()
    const target = verdict.kind === 'via' ? verdict.upstream.name : formatEndpoint(connection.destination)
    const timer = setTimeout(() => {
      const error = new TproxyError('E_TIMEOUT', `connect to ${target}: no answer within ${connectMs} ms`)
      late.abort(error)
      reject(error)
    }, connectMs)
    const aborted = () => {
      late.abort()
      reject(new TproxyError('E_STATE', 'closing'))
    }
    closing.addEventListener('abort', aborted)
    if (closing.aborted) aborted()
    const attempt =
      verdict.kind === 'via'
        ? this.#connectVia(connection, verdict, late.signal)
        : connection.accepted.direct(late.signal)
    // An upstream that ignores the signal must not leave its stream behind.
    attempt.then(
      (stream) => late.signal.aborted && reset(stream),
      () => {},
    )
    try {
      return await Promise.race([attempt, given])
    } finally {
      clearTimeout(timer)
      closing.removeEventListener('abort', aborted)
    }
  }

  async #connectVia(
    connection: Connection,
    { upstream }: Extract<Verdict, { kind: 'via' }>,
    signal: AbortSignal,
  ): Promise<Duplex> {
    if (upstream.address !== undefined) await this.#transport.exempt?.(upstream.address)
    const stream = await upstream.connect(await this.#destination(connection, upstream), signal)
    // One that does not say where it listens shows it here. Its first connection may have come back to us by now, and
    // ends with this; the next ones do not come.
    if (upstream.address === undefined && stream instanceof Socket && stream.remoteAddress !== undefined)
      await this.#transport
        .exempt?.({ host: stream.remoteAddress, port: stream.remotePort ?? 0 })
        .catch((error) => {
          this.#warnings.next(reason(error))
        })
    stream.on('error', () => {})
    return stream
  }

  async #destination(connection: Connection, { names = this.#names }: Upstream): Promise<Destination> {
    const name = names ? (await connection.look()).name : undefined
    // The upstream would take it for itself (RFC 6761, 6.3): nobody meant that who connects to another address.
    if (name === undefined || /(^|\.)localhost$/.test(name)) return connection.destination
    return { ...connection.destination, name }
  }
}

const closed = (socket: Socket) => new Promise<void>((resolve) => void socket.once('close', () => resolve()))

function drop(session: Session, withReset: boolean, error: Error | undefined): void {
  const { socket, accepted } = session.connection
  if (withReset) socket.resetAndDestroy()
  else {
    socket.once('finish', () => {
      accepted.closeInOrder?.()
      // Unread bytes would turn the end into a reset.
      socket.resume().once('end', () => socket.destroy())
      setTimeout(() => socket.destroy(), 1000).unref()
    })
    socket.end()
  }
  session.finish({ how: 'dropped', ...(error && { error }) })
}
