import {
  type Carriage,
  closeDescriptor,
  holdPort,
  PairState,
  type SocketEnd,
  type Splicing,
} from '@tproxy/bpf'
import { TproxyError } from '../errors.ts'
import type { SessionEnd } from '../session.ts'
import type { Splice, SpliceListener } from '../transport.ts'
import type { Budget } from './acceptor.ts'
import { pump } from './pump.ts'
import { BrokenSocket, type TcpSocket } from './tcp-socket.ts'

/** Between looks at what our sockets still hold; doubled up to a quarter of a second. */
export const settleMs = 2

/** A pair that has ended answers a repeated last segment for so long. */
export const lingerMs = 1_000

/** What all pairs share. */
export interface PairOwner {
  readonly splicing: Splicing
  readonly budget: Budget
  /** Whether they may outlive this process. */
  readonly keeps: boolean
  /** Calls {@link Pair.retire} when nothing can be on its way to the silent accepted socket any more. */
  silent(pair: Pair): void
  over(pair: Pair): void
}

interface PairOptions {
  readonly index: number
  readonly serial: number
  readonly family: 4 | 6
  readonly listener: SpliceListener
  /** Undefined where an earlier process has closed them. */
  readonly sockets: readonly [towardsClient: TcpSocket, towardsUpstream: TcpSocket] | undefined
  readonly owner: PairOwner
}

/** One spliced connection. */
export class Pair implements Splice {
  readonly index: number
  readonly serial: number
  readonly family: 4 | 6
  readonly #owner: PairOwner
  /** Let go at the end, and the sockets as soon as they are silent: a pair may live long. */
  #listener: SpliceListener | undefined
  #sockets: readonly [TcpSocket, TcpSocket] | undefined
  #isRelayed = false
  /** The accepted socket, silent. */
  #retired: TcpSocket | undefined
  /** Holds the port of our connection to the upstream; counts by itself once the accepted socket is closed. */
  #held: number | undefined
  #isCounted = false
  #carriage: Pick<Carriage, 'sent' | 'received'> | undefined
  #isOver = false
  #isLeft = false
  #nextLook = 0
  #interval = settleMs

  constructor({ index, serial, family, listener, sockets, owner }: PairOptions) {
    this.index = index
    this.serial = serial
    this.family = family
    this.#listener = listener
    this.#sockets = sockets
    this.#owner = owner
  }

  /** Whether it goes on when this process has ended. */
  get isLeft(): boolean {
    return this.#isLeft
  }

  get bytes(): { sent: number; received: number } {
    if (!this.#isOver) this.#carriage = this.settle()
    return { sent: Number(this.#carriage?.sent ?? 0), received: Number(this.#carriage?.received ?? 0) }
  }

  get isOver(): boolean {
    return this.#isOver
  }

  get isSilent(): boolean {
    return this.#sockets === undefined
  }

  /** When it is time to look whether our sockets have done their work, by `performance.now()`. */
  get nextLook(): number {
    return this.#nextLook
  }

  /** Whether it is. */
  due(now: number): boolean {
    if (now < this.#nextLook) return false
    this.#nextLook = now + this.#interval
    this.#interval = Math.min(this.#interval * 2, 256)
    return true
  }

  /** Asks the kernel, which silences our sockets when nothing is left for them to do. */
  settle(): Carriage {
    return this.#owner.splicing.settle(this.index, this.serial, this.family)
  }

  /** Moves what our sockets have received and not passed on, without streams as far as that goes. */
  deliver(): void {
    if (this.#sockets === undefined || this.#isRelayed) return
    const [towardsClient, towardsUpstream] = this.#sockets
    try {
      const [up, down] = [towardsClient.detach(), towardsUpstream.detach()]
      const inStreams = towardsClient.hasStream || towardsUpstream.hasStream
      const isUp = pump(towardsClient, towardsUpstream, up)
      const isDown = pump(towardsUpstream, towardsClient, down)
      if (inStreams || !isUp || !isDown) queueMicrotask(() => this.relay())
    } catch (error) {
      if (!(error instanceof BrokenSocket)) throw error
      const by = error.socket === towardsClient ? 'client' : 'upstream'
      queueMicrotask(() => this.#broke({ how: 'reset', by, error }))
    }
  }

  /** Has streams do the rest. */
  relay(): void {
    if (this.#sockets === undefined || this.#isRelayed || this.#isOver) return
    this.#isRelayed = true
    this.#listener?.relay(this.#sockets[1].stream)
  }

  update(carriage: Omit<Carriage, 'unfit'>): void {
    if (this.#isOver) return
    this.#carriage = carriage
    const { idleMs = 0, halfClosedMs = 0 } = this.#listener ?? {}
    const idle = Number(carriage.idleNs) / 1e6
    const limit = carriage.half ? halfClosedMs : idleMs
    const expire = () => {
      if (limit > 0 && idle > limit)
        this.abort({ how: 'timeout', error: new TproxyError('E_TIMEOUT', `idle for ${limit} ms`) })
    }
    switch (carriage.state) {
      case PairState.carried:
        // A relay has limits of its own.
        if (!this.#isRelayed) expire()
        break
      case PairState.spliced:
        this.silence()
        // It gave up without a word, as after its last retransmission.
        if (carriage.alone && idle > lingerMs) this.#end({ how: 'reset', by: 'client' })
        else expire()
        break
      case PairState.closed:
        this.#end({ how: 'closed' })
        break
      case PairState.reset:
        this.#end({ how: 'reset', by: carriage.by === 0 ? 'client' : 'upstream' })
        break
      case PairState.unfit:
        this.relay()
        this.#leaveAlone()
    }
  }

  /** Our sockets say nothing any more; the one to the upstream keeps its port. */
  silence(): void {
    if (this.#sockets === undefined || this.#isOver) return
    const [towardsClient, towardsUpstream] = this.#sockets
    this.#sockets = undefined
    this.#listener?.silent()
    this.#held = towardsUpstream.release()
    towardsClient.silence()
    this.#retired = towardsClient
    this.#owner.silent(this)
  }

  /** Closes the accepted socket. */
  retire(): void {
    if (this.#retired === undefined) return
    this.#retired.close()
    this.#retired = undefined
    this.#count()
  }

  abort(end: SessionEnd): void {
    if (this.#isOver) return
    const carriage = this.settle()
    this.#carriage = carriage
    // The ends still go by the numbers of our sockets.
    if (this.#isRelayed && !isTranslated(carriage.state)) return
    // An upstream that lacks what the process had to deliver goes by these, and would not believe a reset by the program's.
    this.#sockets?.[1].reset()
    this.#owner.splicing.sever(this.index, this.serial, this.family)
    this.#end(end)
  }

  release(): void {
    if (this.#isOver) return
    // Some of it the kernel has carried since the last look.
    this.#carriage = this.settle()
    this.#leaveAlone()
  }

  leave(): void {
    if (this.#isOver || !this.isSilent || !this.#owner.keeps) return
    const carriage = this.settle()
    if (carriage.state !== PairState.spliced) return
    this.#carriage = carriage
    this.#isOver = true
    this.#isLeft = true
    this.#listener?.ended({ how: 'kept' })
  }

  forget(): void {
    this.#owner.splicing.forget(this.index, this.serial, this.family)
  }

  /** Takes the port of a connection that an earlier process has left. */
  hold(from: SocketEnd, to: SocketEnd): void {
    try {
      this.#held = holdPort(from, to)
      this.#count()
    } catch {
      // Another has it by now, or its address is gone: nothing that this connection would notice.
    }
  }

  /** Lets go of the port. */
  close(): void {
    if (this.#held === undefined) return
    closeDescriptor(this.#held)
    this.#held = undefined
    if (this.#isCounted) this.#owner.budget.open -= half
    this.#isCounted = false
  }

  #count(): void {
    if (this.#held === undefined) return
    this.#owner.budget.open += half
    this.#isCounted = true
  }

  /** One of our sockets was reset: perhaps since its end, gone by now, has heard it say something late. */
  #broke(end: SessionEnd): void {
    if (this.#isOver) return
    const carriage = this.settle()
    if (carriage.state === PairState.closed || carriage.state === PairState.reset) this.update(carriage)
    else this.abort(end)
  }

  #leaveAlone(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#sockets = undefined
    this.#owner.over(this)
  }

  #end(end: SessionEnd): void {
    this.silence()
    this.#leaveAlone()
    this.close()
    // The program may come back by the same port at once, and would find it there.
    this.retire()
    this.#listener?.ended(end)
    this.#listener = undefined
  }
}

/** Whether what the ends have had by now is known to them only. */
const isTranslated = (state: number) => state === PairState.carried || state === PairState.spliced

/** Of a connection's two descriptors, a spliced one keeps one. */
const half = 0.5
