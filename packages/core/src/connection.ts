import { Socket } from 'node:net'
import type { Endpoint } from './endpoint.ts'
import { TproxyError } from './errors.ts'
import { type Peek, type Peeked, peek } from './peek/peek.ts'
import type { ProcessInfo } from './process.ts'
import type { Session, SessionEnd } from './session.ts'
import type { Accepted } from './transport.ts'
import { isVerdict, type Verdict } from './verdict.ts'

/** What carries out verdicts: the interception a connection belongs to. */
export type Settler = (
  connection: Connection,
  verdict: Verdict,
  plugin: string | undefined,
  failure: Error | undefined,
) => Promise<Session>

/** Long enough for a first flight to follow the handshake over a bad link; all that a server that speaks first is delayed. */
const peekMs = 300

/**
 * A connection that is held until somebody decides: {@link settle} it, or {@link take} its socket. Its program waits in connect(2)
 * until then, and until the other side is reached; or until somebody wants to know what it says: then it is accepted first.
 */
export class Connection {
  /** Unique within the interception, counting from 1. */
  readonly id: number
  readonly source: Endpoint
  /** Where the program wanted to go. */
  readonly destination: Endpoint
  /** The local program; undefined for what has none, such as a transport of your own. */
  readonly process: ProcessInfo | undefined
  /** The interface the connection was about to leave by. */
  readonly interface: string | undefined
  /** Number of the rule that said proxy, from 1; undefined when none matched. */
  readonly rule: number | undefined
  /** Name of the plugin that this rule wants to be asked, and no other. */
  readonly via: string | undefined
  /** When its program's first packet was taken off its way. */
  readonly acceptedAt: Date = new Date()
  /** @internal On the clock that durations are measured by. */
  readonly acceptedMs: number = performance.now()
  /** @internal */
  readonly accepted: Accepted
  readonly #settler: Settler
  /** That somebody may hold, and that has our listeners. */
  #socket: Socket | undefined
  #isClaimed = false
  #decided: (() => void) | undefined
  #peek: Peek | undefined
  #peeked: Peeked | undefined
  #session: Session | undefined
  #sessionAsked: PromiseWithResolvers<Session> | undefined
  /** How it ended before anybody had decided. */
  #over: SessionEnd | undefined
  #isGone = false
  #gone: (() => void) | undefined

  constructor(id: number, accepted: Accepted, settler: Settler) {
    this.id = id
    this.source = accepted.source
    this.destination = accepted.destination
    this.process = accepted.process
    this.interface = accepted.interface
    this.rule = accepted.rule
    this.via = accepted.via
    this.accepted = accepted
    this.#settler = settler
    accepted.whenGone?.(() => this.#vanish())
  }

  /**
   * The program's end, paused: all that it sent is still to be read. Reading is for whoever takes the connection. To ask for it
   * is to accept the connection: what fails from then on is a reset for the program, and no refusal. Once the kernel carries it
   * there is none, and a closed one in its place.
   */
  get socket(): Socket {
    const { socket } = this.accepted
    // One that is gone may stand for many.
    if (socket !== this.#socket && !socket.destroyed) {
      this.#socket = socket
      // It is paused and unread; an error that comes meanwhile shows again when it is carried.
      socket.on('error', () => {})
      socket.once('close', () => this.#decide())
    }
    return socket
  }

  /** Whether a verdict was given, or the socket taken, or the connection closed. */
  get settled(): boolean {
    return this.#isClaimed || this.#over !== undefined
  }

  /**
   * The session that it becomes once a verdict is given: for a plugin that wants to watch what it decided. Stays pending when
   * the connection is taken, or refused because nobody decided.
   */
  get session(): Promise<Session> {
    this.#sessionAsked ??= Promise.withResolvers()
    if (this.#session !== undefined) this.#sessionAsked.resolve(this.#session)
    return this.#sessionAsked.promise
  }

  /** @internal */
  became(session: Session): void {
    this.#session = session
    this.#sessionAsked?.resolve(session)
  }

  /** What {@link peek} found; undefined before, and when nobody looked. */
  get peeked(): Peeked | undefined {
    return this.#peeked
  }

  /**
   * Looks at what the program says first and resolves with the protocol and the host name that it speaks of, without
   * consuming a byte: whatever the verdict, the other side gets them all. Resolves with nothing when the program has not
   * spoken within `deadlineMs` (default 300), as where the server speaks first, or when it has gone. Asked again, it gives
   * the same answer. Rejects with `E_STATE` once the connection is settled, and `E_OPTION` for what is no time. Who settles it
   * meanwhile ends this with what is known by then.
   */
  async peek({ deadlineMs = peekMs }: { deadlineMs?: number } = {}): Promise<Peeked> {
    if (!Number.isFinite(deadlineMs) || deadlineMs < 0 || deadlineMs >= 2 ** 31)
      throw new TproxyError('E_OPTION', `deadlineMs is ${deadlineMs}`, { hint: 'give milliseconds' })
    if (this.#isClaimed && this.#peek === undefined) throw this.#tooLate('peek into')
    if (this.#over !== undefined && this.#peek === undefined) return { protocol: undefined }
    const accepting = this.#accepting()
    if (accepting !== undefined) await accepting
    // Whoever carries it reads it by now: what we took would be there twice.
    if (this.settled && this.#peek === undefined) return { protocol: undefined }
    return this.#look(deadlineMs)
  }

  /** @internal {@link peek}, for who carries out the verdict. */
  async look(): Promise<Peeked> {
    const accepting = this.#accepting()
    if (accepting !== undefined) await accepting
    return this.#look(peekMs)
  }

  /** Until somebody can look. */
  #accepting(): Promise<void> | undefined {
    return this.#isGone ? undefined : this.accepted.accept?.()?.catch(() => {})
  }

  async #look(deadlineMs: number): Promise<Peeked> {
    if (this.#isGone) return { protocol: undefined }
    this.#peek ??= peek(this.socket, deadlineMs)
    this.#peeked = await this.#peek.peeked
    return this.#peeked
  }

  /**
   * Carries out a verdict. Resolves when it has been carried out: the upstream is connected, or has failed (see the
   * session's `end`), or the connection is dropped. Never rejects for the connection's sake: one that is over
   * by now, because its program has given up, or nobody decided in time, is a session that has ended. Throws `E_STATE` when it was settled before, and `E_OPTION` for what is no verdict.
   * `plugin` names who decided, `failure` says why a connection is dropped.
   */
  async settle(verdict: Verdict, plugin?: string, failure?: Error): Promise<Session> {
    if (!isVerdict(verdict))
      throw new TproxyError('E_OPTION', `settle connection ${this.id}: that is no verdict`, {
        hint: 'give direct(), via(upstream) or drop()',
      })
    this.#claim('settle')
    return this.#settler(this, verdict, plugin, failure)
  }

  /**
   * Hands the socket over to the caller, who from now on owns it; paused, so that a server which is given it wants `resume()`.
   * Throws `E_STATE` when the connection was settled. Where it is over by now, it is a closed one.
   */
  take(): Socket {
    this.#claim('take')
    if (this.#over !== undefined) return new Socket().destroy()
    // It may not be accepted before.
    const { socket, accepted } = this
    accepted.closeInOrder?.()
    accepted.accelerate?.()
    return socket
  }

  /** @internal The kernel carries it, for long perhaps: its socket, and all that hangs on it, are let go. */
  letGo(): void {
    this.accepted.letGo?.()
    this.#peek = undefined
    this.#socket = undefined
    this.#gone = undefined
  }

  /** @internal Calls back when its program gives up before it was accepted; while nobody has decided, there is nothing to decide any more. */
  whenGone(callback: () => void): void {
    this.#gone = callback
    if (this.#isGone) callback()
  }

  #vanish(): void {
    this.#isGone = true
    if (!this.settled) this.#over = { how: 'reset', by: 'client' }
    this.#decide()
    this.#gone?.()
  }

  /** @internal How it ended before anybody had decided. */
  get over(): SessionEnd | undefined {
    return this.#over
  }

  /** If nobody has settled it: has its program hear that it is refused, or resets it, where it was accepted. */
  reset(): void {
    this.refuse({ how: 'dropped' })
  }

  /** @internal The same; says why. */
  refuse(end: SessionEnd): void {
    if (this.settled) return
    this.#over = end
    this.#decide()
    this.end()
  }

  /** @internal The same, whoever has settled it, and without a word of how. */
  end(): void {
    if (this.accepted.reset !== undefined) this.accepted.reset()
    else this.accepted.socket.resetAndDestroy()
  }

  /** @internal Calls back once, when there is nothing to decide any more: it was settled, taken or reset, or has closed. */
  onDecided(callback: () => void): void {
    this.#decided = callback
  }

  /** @internal The same as a promise. */
  get decided(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const before = this.#decided
    this.#decided = () => {
      before?.()
      resolve()
    }
    return promise
  }

  #decide(): void {
    this.#decided?.()
    this.#decided = undefined
  }

  #claim(operation: string): void {
    if (this.#isClaimed) throw this.#tooLate(operation)
    this.#isClaimed = true
    this.#decide()
    this.#peek?.stop()
  }

  #tooLate(operation: string): TproxyError {
    return new TproxyError('E_STATE', `${operation} connection ${this.id}: it has already been settled`, {
      hint: 'settle or take a connection once',
    })
  }
}
