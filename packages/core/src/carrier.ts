import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Limits } from './options.ts'
import { Relay } from './relay.ts'
import type { Session, SessionEnd } from './session.ts'
import type { LazyStream, Splice, SpliceListener, Transport } from './transport.ts'
import type { Transforms } from './verdict.ts'

/** Of silence, after which the kernel asks whether an upstream is still there. */
const keepAliveMs = 60_000

/** Has a session carried whose other side was reached: by the kernel where it can, else by a relay here. */
export class Carrier implements SpliceListener {
  readonly idleMs: number
  readonly halfClosedMs: number
  readonly #session: Session
  #upstream: LazyStream | undefined
  #splice: Splice | undefined
  #relay: Relay | undefined

  constructor(session: Session, upstream: LazyStream, { idleMs, halfClosedMs }: Limits) {
    this.#session = session
    this.#upstream = upstream
    this.idleMs = idleMs
    this.halfClosedMs = halfClosedMs
  }

  /** Until the session's end. */
  carry(transport: Transport, transforms: Transforms | undefined): void {
    const { connection } = this.#session
    this.#upstream?.resetOnClose?.()
    const carried =
      transforms !== undefined
        ? 'a plugin reads the bytes'
        : transport.splice?.(connection.accepted, this.#upstream as LazyStream, this)
    if (typeof carried === 'object') this.#splice = carried
    if (carried !== undefined) this.#session.joined(carried)
    if (this.#splice === undefined) {
      connection.accepted.accelerate?.()
      this.#begin((this.#upstream as LazyStream).stream, transforms)
    }
    // It may call back at once, and there is something to close by now.
    this.#session.onClose(() => this.#abort())
  }

  relay(upstream: Duplex): void {
    this.#begin(upstream, undefined)
  }

  silent(): void {
    this.#session.spliced()
    this.#relay?.handOver()
    this.#relay = undefined
    this.#upstream = undefined
    this.#session.connection.letGo()
  }

  ended(end: SessionEnd): void {
    this.#session.finish(end)
  }

  #begin(upstream: Duplex, transforms: Transforms | undefined): void {
    const { connection, relayed } = this.#session
    const towards = this.#upstream
    if (upstream instanceof Socket) upstream.setKeepAlive(true, keepAliveMs).setNoDelay(true)
    this.#relay = new Relay(connection.socket, upstream, {
      idleMs: this.idleMs,
      halfClosedMs: this.halfClosedMs,
      bytes: relayed,
      ...(transforms && { transforms }),
      clientEnded: () => connection.accepted.closeInOrder?.(),
      upstreamEnded: () => towards?.closeInOrder?.(),
    })
    void this.#relay.ended.then((end) => {
      if (end.how !== 'closed') this.#splice?.abort(end)
      this.#splice?.release()
      this.#session.finish(end)
    })
  }

  #abort(): void {
    this.#splice?.abort({ how: 'aborted' })
    // Handed over, if that was all.
    this.#relay?.abort({ how: 'aborted' })
  }
}
