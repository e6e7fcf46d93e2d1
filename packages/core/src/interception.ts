import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Observable, Subject, type Subscription, throwError } from 'rxjs'
import { Carrier } from './carrier.ts'
import { Connection } from './connection.ts'
import { formatEndpoint } from './endpoint.ts'
import { GaveUp, reason, TproxyError } from './errors.ts'
import { type FastpathState, type Limits, limits, type Timeouts } from './options.ts'
import { type ReachOptions, reach } from './reach.ts'
import { checkRemember } from './remember.ts'
import type { Rules } from './rules/control.ts'
import { Session } from './session.ts'
import type { TraceStep, TraceTarget } from './trace.ts'
import type { Accepted, Adopted, LazyStream, Memories, Transport } from './transport.ts'
import { transformsOf, type Verdict } from './verdict.ts'

/**
 * Connections taken from a {@link Transport}, held until somebody decides, and carried as decided. Close it to undo
 * everything.
 */
export class Interception implements AsyncDisposable {
  /**
   * Connections that programs wait for, not yet decided. Hot: who subscribes late misses earlier ones. It never errors and
   * completes on {@link close}. A connection that nobody settles within `timeouts.decisionMs` is refused.
   */
  readonly connections: Observable<Connection>
  /** Decided connections, each when it is decided; `session.ended` tells the end. Hot; completes on {@link close}. */
  readonly sessions: Observable<Session>
  /** Problems that cost one connection, or nothing, as messages for people. Hot. */
  readonly warnings: Observable<string>
  readonly limits: Limits

  readonly #transport: Transport
  readonly #reach: ReachOptions
  readonly #connections = new Subject<Connection>()
  readonly #sessions = new Subject<Session>()
  readonly #warnings = new Subject<string>()
  readonly #undecided = new Set<Connection>()
  readonly #running = new Set<Session>()
  readonly #taking: Subscription
  readonly #subscriptions: (Subscription | undefined)[]
  #lastId = 0
  #deadline: NodeJS.Timeout | undefined
  #closing: Promise<void> | undefined

  /** `names`: whether upstreams that do not say themselves are told host names. */
  constructor(transport: Transport, timeouts?: Timeouts, { names = false }: { names?: boolean } = {}) {
    this.#transport = transport
    this.limits = limits(timeouts)
    const { connectMs } = this.limits
    this.#reach = { transport, names, connectMs, warn: (message) => this.warn(message) }
    this.connections = this.#connections.asObservable()
    this.sessions = this.#sessions.asObservable()
    this.warnings = this.#warnings.asObservable()
    this.#taking = transport.accepted.subscribe((accepted) => this.#hold(accepted))
    this.#subscriptions = [
      transport.warnings?.subscribe(this.#warnings),
      transport.outdated?.subscribe((isOutdated) => {
        for (const connection of this.#undecided)
          if (isOutdated(connection.accepted)) connection.refuse({ how: 'aborted' })
        for (const session of this.#running) if (isOutdated(session.connection.accepted)) void session.close()
      }),
    ]
  }

  /** The rules in force; undefined for a transport that has none. They can be read and replaced. */
  get rules(): Rules | undefined {
    return this.#transport.rules
  }

  /** Names of the interfaces whose connections are taken now; none for a transport that has none. */
  get interfaces(): readonly string[] {
    return this.#transport.interfaces ?? []
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
   * `timeouts.drainMs` (or `drainMs`), also those that wait for a decision, resets the rest, and undoes all
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
    for (const connection of this.#undecided) connection.refuse({ how: 'aborted' })
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
    clearTimeout(this.#deadline)
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
      const left: Promise<unknown>[] = [
        ...[...this.#running].map((session) => session.ended),
        ...[...this.#undecided].map(({ decided }) => decided),
      ]
      if (left.length === 0) return
      await Promise.all(left)
    }
  }

  #hold(accepted: Accepted): void {
    const connection = new Connection(++this.#lastId, accepted, this.#settle)
    // Its program has given up before anybody could hear of it.
    if (connection.settled) return
    this.#undecided.add(connection)
    connection.onDecided(() => this.#undecided.delete(connection))
    this.#connections.next(connection)
    this.#deadline ??= this.#awaitOldest()
  }

  /** One timer for all that are undecided: most are decided long before. */
  #awaitOldest(): NodeJS.Timeout | undefined {
    const [oldest] = this.#undecided
    if (oldest === undefined) return undefined
    const left = oldest.acceptedMs + this.limits.decisionMs - performance.now()
    return setTimeout(() => {
      this.#expire()
      this.#deadline = this.#awaitOldest()
    }, left).unref()
  }

  #expire(): void {
    const { decisionMs } = this.limits
    for (const connection of this.#undecided) {
      if (performance.now() - connection.acceptedMs < decisionMs) return
      const what = `nobody decided ${formatEndpoint(connection.destination)} within ${decisionMs} ms`
      this.#warnings.next(`${what}: refused`)
      connection.refuse({ how: 'dropped', error: new TproxyError('E_TIMEOUT', what) })
    }
  }

  readonly #settle = async (
    connection: Connection,
    verdict: Verdict,
    plugin: string | undefined,
    failure: Error | undefined,
  ): Promise<Session> => {
    const session = new Session(connection, verdict, plugin)
    this.#running.add(session)
    session.onEnd(() => this.#running.delete(session))
    this.#remember(session)
    connection.became(session)
    this.#sessions.next(session)
    if (connection.over !== undefined) session.finish(connection.over)
    else if (verdict.kind === 'drop') drop(session, verdict.reset ?? true, failure)
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
    let upstream: LazyStream | undefined
    try {
      upstream = await reach(session, verdict, this.#reach)
      const accepting = accept(session)
      if (accepting !== undefined) await accepting
      const transforms = transformsOf(session.connection, verdict)
      // What is reached at once leaves nobody to call back.
      if (session.isClosing) throw new TproxyError('E_STATE', 'closing')
      new Carrier(session, upstream, this.limits).carry(this.#transport, transforms)
    } catch (cause) {
      const error = cause instanceof Error ? cause : new Error(reason(cause))
      session.connection.end()
      try {
        upstream?.reset()
      } catch (another) {
        this.warn(
          `reset the upstream of ${formatEndpoint(session.connection.destination)}: ${reason(another)}`,
        )
      }
      if (session.isClosing) session.finish({ how: 'aborted' })
      else if (error instanceof GaveUp) session.finish({ how: 'reset', by: 'client' })
      else session.finish({ how: 'failed', error })
    }
  }
}

/** The program hears that it is connected, if it waits for that still. */
function accept(session: Session): Promise<void> | undefined {
  const accepting = session.connection.accepted.accept?.()
  if (accepting === undefined) return undefined
  const { promise: closing, reject } = Promise.withResolvers<never>()
  session.onClose(() => reject(new TproxyError('E_STATE', 'closing')))
  return Promise.race([accepting, closing])
}

function drop(session: Session, withReset: boolean, error: Error | undefined): void {
  const { connection } = session
  if (withReset) connection.end()
  else endInOrder(connection)
  session.finish({ how: 'dropped', ...(error && { error }) })
}

function endInOrder({ socket, accepted }: Connection): void {
  // Its program has given up meanwhile; and what is there in its place may stand for many.
  if (socket.destroyed) return
  socket.once('finish', () => {
    accepted.closeInOrder?.()
    // Unread bytes would turn the end into a reset.
    socket.resume().once('end', () => socket.destroy())
    setTimeout(() => socket.destroy(), 1000).unref()
  })
  socket.end()
}
