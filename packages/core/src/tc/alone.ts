import type { Socket } from 'node:net'
import { constants } from 'node:os'
import { type HeldSyn, type LeftAlone, leftAlone, type OpeningEvent } from '@tproxy/bpf'
import { type Endpoint, endpointOf } from '../endpoint.ts'
import { GaveUp, TproxyError } from '../errors.ts'
import type { SessionEnd } from '../session.ts'
import type { LazyStream, Splice, SpliceListener } from '../transport.ts'
import { connectError } from './connect-error.ts'
import type { Opening, Openings } from './openings.ts'
import { goneStream } from './tcp-socket.ts'

interface AloneOptions {
  readonly held: HeldSyn
  readonly openings: Openings
  /** `ifindex`: of the interface that it leaves by, as it is now. */
  readonly by: { readonly family: 4 | 6; readonly ifindex: number }
  /** Whether it is to go on when this process ends in order. */
  readonly keeps: boolean
}

/** Of include/net/tcp_states.h. */
const tcp = { synSent: 2, finWait1: 4, finWait2: 5, closeWait: 8, lastAck: 9, closing: 11 } as const

/** States from which a connection ends in order, where nobody has an error of it. */
const lastStates: readonly number[] = [tcp.finWait2, tcp.closing, tcp.lastAck]

/** States in which one direction has ended. */
const halfClosed: readonly number[] = [...lastStates, tcp.finWait1, tcp.closeWait]

/**
 * A connection that was decided before anything had happened, and goes where its program wanted as if we were not there: its own
 * socket knows how much it has carried, and how it ended.
 */
export class Alone implements LazyStream, Splice, Opening {
  readonly id: number
  readonly #alone: LeftAlone
  readonly #destination: Endpoint
  readonly #options: Omit<AloneOptions, 'held'>
  /** Until it is. */
  #reached: PromiseWithResolvers<this> | undefined = Promise.withResolvers()
  #bytes = { sent: 0, received: 0 }
  #changedAt = performance.now()
  #listener: SpliceListener | undefined
  /** Whether the last look did not find it. */
  #isMissing = false
  #end: SessionEnd | undefined

  /** Lets it go on. Throws {@link GaveUp} where its program does not wait any more. */
  constructor(options: AloneOptions, signal: AbortSignal) {
    const { held, ...others } = options
    const { openings, by } = options
    this.id = held.id
    this.#destination = endpointOf(held.key.destination, held.key.destinationPort)
    this.#alone = leftAlone(held, by.family)
    this.#options = others
    if (!openings.kernel.leaveAlone(held, by.family, by.ifindex)) {
      // The event that says so may be lost.
      openings.forget(this)
      throw new GaveUp()
    }
    openings.add(this)
    signal.addEventListener('abort', () => this.reset(), { once: true })
  }

  /** Resolves when the other side has answered; rejects as `net.connect` fails, and with {@link GaveUp}. To be asked at once. */
  get answered(): Promise<this> {
    return this.#reached?.promise ?? Promise.resolve(this)
  }

  /** None of ours. */
  get stream(): Socket {
    return goneStream
  }

  get bytes(): { sent: number; received: number } {
    this.#watch()
    return this.#bytes
  }

  /** Tells `listener` from now on. */
  carry(listener: SpliceListener): void {
    this.#listener = listener
    queueMicrotask(() => listener.silent())
    // It was over as soon as we heard of it. Who waits for the one is to have it before the other.
    const end = this.#end
    if (end !== undefined) setImmediate(() => this.#tell(end))
  }

  reset(): void {
    this.abort({ how: 'aborted' })
  }

  abort(end: SessionEnd): void {
    if (this.#end !== undefined) return
    this.#watch()
    const { openings, by } = this.#options
    openings.forget(this)
    openings.kernel.cut(this.#alone, by.ifindex)
    this.#finish(end)
  }

  release(): void {}

  leave(): void {
    if (this.#options.keeps) this.#finish({ how: 'kept' })
  }

  reached(): void {
    this.#changedAt = performance.now()
    this.#reached?.resolve(this)
    this.#reached = undefined
  }

  ended(event: OpeningEvent): void {
    this.#bytes = { sent: Number(event.sent), received: Number(event.received) }
    // Where the event was lost that said so.
    if (event.state !== tcp.synSent) this.reached()
    this.#reached?.reject(this.#whyNot(event))
    this.#reached = undefined
    this.#finish(endOf(event))
  }

  /** Also finds out what an event would have told that was lost. */
  look(): void {
    if (this.#end !== undefined) return
    const state = this.#watch()
    if (state === undefined) {
      // Of its end, only that nobody knows how it was.
      if (this.#isMissing) {
        this.#options.openings.forget(this)
        this.#reached?.reject(new GaveUp())
        this.#finish({ how: 'reset' })
      }
      this.#isMissing = true
      return
    }
    if (this.#reached !== undefined) {
      if (state === tcp.synSent) return
      this.reached()
    }
    const { idleMs = 0, halfClosedMs = 0 } = this.#listener ?? {}
    const limit = halfClosed.includes(state) ? halfClosedMs : idleMs
    if (limit > 0 && performance.now() - this.#changedAt > limit)
      this.abort({ how: 'timeout', error: new TproxyError('E_TIMEOUT', `idle for ${limit} ms`) })
  }

  /** Reads how much it has carried; returns its state. */
  #watch(): number | undefined {
    if (this.#end !== undefined) return undefined
    const { openings, by } = this.#options
    const watched = openings.kernel.watch(this.#alone, by.ifindex)
    // Its end is about to be told.
    if (watched === undefined) return undefined
    const [sent, received] = [Number(watched.sent), Number(watched.received)]
    if (sent !== this.#bytes.sent || received !== this.#bytes.received) this.#changedAt = performance.now()
    this.#bytes = { sent, received }
    return watched.state
  }

  #whyNot({ error }: OpeningEvent): Error {
    return error === 0 ? new GaveUp() : connectError(error, this.#destination)
  }

  #finish(end: SessionEnd): void {
    if (this.#end !== undefined) return
    this.#end = end
    if (this.#listener !== undefined) this.#tell(end)
  }

  #tell(end: SessionEnd): void {
    this.#listener?.ended(end)
    this.#listener = undefined
  }
}

/** How an established one ended. */
function endOf({ error, state }: OpeningEvent): SessionEnd {
  if (error === 0) return lastStates.includes(state) ? { how: 'closed' } : { how: 'reset', by: 'client' }
  // ECONNABORTED: somebody on this host has ended it, such as by ss --kill.
  return { how: 'reset', by: error === constants.errno.ECONNABORTED ? 'client' : 'upstream' }
}
