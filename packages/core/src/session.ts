import type { Connection } from './connection.ts'
import type { Remembered } from './remember.ts'
import type { Splice } from './transport.ts'
import type { Verdict } from './verdict.ts'

/** How a session ended. */
export interface SessionEnd {
  /**
   * - `closed` both directions ended in order
   * - `reset` one side reset the connection or broke off, and the other was reset in turn
   * - `failed` the upstream or destination was not reached, or a plugin's transform failed; the client was refused, or reset
   * - `dropped` the verdict was to drop, or nobody decided in time
   * - `timeout` nothing moved for the idle or half-closed time
   * - `aborted` we closed it, while shutting down or because somebody asked for it
   * - `kept` it goes on in the kernel without us (`keepSpliced`)
   */
  readonly how: 'closed' | 'reset' | 'failed' | 'dropped' | 'timeout' | 'aborted' | 'kept'
  /** For `reset`: who did. */
  readonly by?: 'client' | 'upstream'
  readonly error?: Error
}

/** A decided connection. */
export class Session {
  readonly connection: Connection
  readonly verdict: Verdict
  /** Who decided; undefined for the default verdict and for callers of `settle` that gave no name. */
  readonly plugin: string | undefined
  readonly startedAt: Date = new Date()
  /** @internal Payload that the relay has carried. */
  readonly relayed: { sent: number; received: number } = { sent: 0, received: 0 }
  readonly #started = performance.now()
  #isClosing = false
  #close: (() => void) | undefined
  #ended: PromiseWithResolvers<Session> | undefined
  #onEnd: (() => void) | undefined
  #splice: Splice | undefined
  #notSpliced: string | undefined
  #silent = false
  #remembered: Remembered | undefined
  #end: SessionEnd | undefined
  #durationMs: number | undefined

  constructor(connection: Connection, verdict: Verdict, plugin: string | undefined) {
    this.connection = connection
    this.verdict = verdict
    this.plugin = plugin
  }

  /** Name of the upstream, for `via`. */
  get upstream(): string | undefined {
    return this.verdict.kind === 'via' ? this.verdict.upstream.name : undefined
  }

  /** Milliseconds from the program's first packet to the verdict. */
  get decisionMs(): number {
    return this.#started - this.connection.acceptedMs
  }

  /** Payload so far. `sent` went from the program to its destination, `received` came back. */
  get bytes(): { readonly sent: number; readonly received: number } {
    const { sent, received } = this.#splice?.bytes ?? this.relayed
    return { sent: Math.max(sent, this.relayed.sent), received: Math.max(received, this.relayed.received) }
  }

  /**
   * Who carries the bytes: the kernel, also as if we were not there, or this process. A connection may start with the one and go
   * over to the other.
   */
  get carried(): 'splice' | 'relay' {
    return this.#silent ? 'splice' : 'relay'
  }

  /** Why the kernel does not carry it; undefined when it does, or will, and for connections that are dropped. */
  get notSpliced(): string | undefined {
    return this.#notSpliced
  }

  /** What the kernel remembered of it at its start: so it decides about later connections. Undefined when nothing. */
  get remembered(): Remembered | undefined {
    return this.#remembered
  }

  /** Resolves with the session once it has ended; never rejects. */
  get ended(): Promise<Session> {
    if (this.#ended === undefined) {
      this.#ended = Promise.withResolvers()
      if (this.#end !== undefined) this.#ended.resolve(this)
    }
    return this.#ended.promise
  }

  /** How it ended; undefined while it lasts. */
  get end(): SessionEnd | undefined {
    return this.#end
  }

  /** Milliseconds since the verdict, until now or the end. */
  get durationMs(): number {
    return this.#durationMs ?? performance.now() - this.#started
  }

  /** Resets both sides. Resolves with the session once it has ended; idempotent, and never rejects. */
  close(): Promise<Session> {
    if (!this.#isClosing) {
      this.#isClosing = true
      this.#close?.()
    }
    return this.ended
  }

  /** @internal Whether somebody wants it closed. */
  get isClosing(): boolean {
    return this.#isClosing
  }

  /** @internal Calls back when somebody wants it closed, at once if so, in place of who was to be called. */
  onClose(callback: () => void): void {
    this.#close = callback
    if (this.#isClosing) callback()
  }

  /** @internal */
  joined(splice: Splice | string): void {
    if (typeof splice === 'string') this.#notSpliced = splice
    else this.#splice = splice
  }

  /** @internal Lets the kernel carry it on without us, if it can. */
  leave(): void {
    this.#splice?.leave()
  }

  /** @internal */
  isRemembered(remembered: Remembered | undefined): void {
    this.#remembered = remembered
  }

  /** @internal */
  spliced(): void {
    this.#silent = true
  }

  /** @internal Calls back once, before anybody else hears of it. */
  onEnd(callback: () => void): void {
    this.#onEnd = callback
  }

  /** @internal */
  finish(end: SessionEnd): void {
    if (this.#end !== undefined) return
    this.#end = end
    this.#durationMs = performance.now() - this.#started
    this.#onEnd?.()
    this.#ended?.resolve(this)
    // What is held by them may be let go.
    this.#onEnd = undefined
    this.#close = undefined
  }
}
