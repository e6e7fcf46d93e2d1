import type { Socket } from 'node:net'
import type { Endpoint } from './endpoint.ts'
import { TproxyError } from './errors.ts'
import type { ProcessInfo } from './process.ts'
import type { Session } from './session.ts'
import type { Accepted } from './transport.ts'
import type { Verdict } from './verdict.ts'

/** What carries out verdicts: the interception a connection belongs to. */
export type Settler = (
  connection: Connection,
  verdict: Verdict,
  plugin: string | undefined,
  failure: Error | undefined,
) => Promise<Session>

/** A connection that was accepted and is held until somebody decides: {@link settle} it, or {@link take} its socket. */
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
  readonly acceptedAt: Date = new Date()
  /** @internal */
  readonly accepted: Accepted
  readonly #settler: Settler
  #settled = false

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
  }

  /** The program's end, paused: nothing was read from it. Reading is for whoever takes the connection. */
  get socket(): Socket {
    return this.accepted.socket
  }

  /** Whether a verdict was given, or the socket taken, or the connection closed. */
  get settled(): boolean {
    return this.#settled
  }

  /**
   * Carries out a verdict. Resolves when it has been carried out: the upstream is connected, or has failed (see the
   * session's `end`), or the connection is dropped. Never rejects for the connection's sake; throws `E_STATE` when it was
   * settled before. `plugin` names who decided, `failure` says why a connection is dropped.
   */
  async settle(verdict: Verdict, plugin?: string, failure?: Error): Promise<Session> {
    this.#claim('settle')
    return this.#settler(this, verdict, plugin, failure)
  }

  /** Hands the socket over to the caller, who from now on owns it. Throws `E_STATE` when the connection was settled. */
  take(): Socket {
    this.#claim('take')
    this.accepted.closeInOrder?.()
    this.accepted.accelerate?.()
    return this.socket
  }

  /** Resets the connection if nobody has settled it. */
  reset(): void {
    if (this.#settled) return
    this.#settled = true
    this.socket.resetAndDestroy()
  }

  #claim(operation: string): void {
    if (this.#settled)
      throw new TproxyError('E_STATE', `${operation} connection ${this.id}: it has already been settled`, {
        hint: 'settle or take a connection once, before its deadline',
      })
    this.#settled = true
  }
}
