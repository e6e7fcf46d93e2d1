import { closeSync } from 'node:fs'
import type { Socket } from 'node:net'
import {
  type Carriage,
  duplicate,
  holdPort,
  type PairAddresses,
  PairState,
  type Splicing,
  silence,
} from '@tproxy/bpf'
import { TproxyError } from '../errors.ts'
import type { SessionEnd } from '../session.ts'
import type { Splice, SpliceOptions } from '../transport.ts'
import type { Budget } from './acceptor.ts'

/** Between looks at what our sockets still hold; doubled up to a quarter of a second. */
export const settleMs = 2

/** A pair that has ended answers a repeated last segment for so long. */
export const lingerMs = 1_000

export interface PairOptions extends SpliceOptions {
  readonly addresses: PairAddresses
  readonly family: 4 | 6
  /** What relays until the kernel carries all; undefined where nobody is left who did. */
  readonly sockets: readonly [towardsClient: Socket, towardsUpstream: Socket] | undefined
  readonly splicing: Splicing
  readonly budget: Budget
  /** Whether it may outlive this process. */
  readonly keeps: boolean
  readonly over: () => void
}

/** One spliced connection. */
export class Pair implements Splice {
  readonly index: number
  readonly serial: number
  readonly family: 4 | 6
  settled = false
  readonly #options: Omit<PairOptions, 'sockets' | keyof SpliceOptions>
  readonly #limits: { readonly idleMs: number; readonly halfClosedMs: number }
  /** What is not needed any more is let go: the pair itself may live long. */
  #sockets: readonly [Socket, Socket] | undefined
  #silent: (() => void) | undefined
  #ended: ((end: SessionEnd) => void) | undefined
  /** Holds the port of our connection to the upstream. */
  #held: number | undefined
  #carriage: Pick<Carriage, 'sent' | 'received'> | undefined
  #isOver = false
  #isLeft = false
  #nextLook = 0
  #interval = settleMs

  constructor({ sockets, silent, ended, idleMs, halfClosedMs, ...options }: PairOptions) {
    this.#options = options
    this.#limits = { idleMs, halfClosedMs }
    this.#sockets = sockets
    this.#silent = silent
    this.#ended = ended
    this.index = options.addresses.pair
    this.serial = options.addresses.serial
    this.family = options.family
    if (sockets === undefined) this.#adopt()
  }

  /** Whether it goes on when this process has ended. */
  get isLeft(): boolean {
    return this.#isLeft
  }

  get bytes(): { sent: number; received: number } {
    const { splicing } = this.#options
    if (!this.#isOver) this.#carriage = splicing.settle(this.index, this.serial, this.family)
    return { sent: Number(this.#carriage?.sent ?? 0), received: Number(this.#carriage?.received ?? 0) }
  }

  get isOver(): boolean {
    return this.#isOver
  }

  get isSilent(): boolean {
    return this.#sockets === undefined
  }

  /** Whether it is time to look whether our sockets have done their work. */
  due(now: number): boolean {
    if (now < this.#nextLook) return false
    this.#nextLook = now + this.#interval
    this.#interval = Math.min(this.#interval * 2, 256)
    return true
  }

  update(carriage: Omit<Carriage, 'unfit'>): void {
    if (this.#isOver) return
    this.#carriage = carriage
    const { idleMs, halfClosedMs } = this.#limits
    const idle = Number(carriage.idleNs) / 1e6
    const limit = carriage.half ? halfClosedMs : idleMs
    switch (carriage.state) {
      case PairState.spliced:
        this.silence()
        // It gave up without a word, as after its last retransmission.
        if (carriage.alone && idle > lingerMs) this.#end({ how: 'reset', by: 'client' })
        else if (limit > 0 && idle > limit)
          this.abort({ how: 'timeout', error: new TproxyError('E_TIMEOUT', `idle for ${limit} ms`) })
        break
      case PairState.closed:
        this.#end({ how: 'closed' })
        break
      case PairState.reset:
        this.#end({ how: 'reset', by: carriage.by === 0 ? 'client' : 'upstream' })
        break
      case PairState.unfit:
        this.release()
    }
  }

  /** Closes our sockets without a word; the one to the upstream keeps its port. */
  silence(): void {
    if (this.#sockets === undefined || this.#isOver) return
    const [towardsClient, towardsUpstream] = this.#sockets
    this.#sockets = undefined
    this.#silent?.()
    this.#silent = undefined
    const fd = descriptor(towardsUpstream)
    if (fd !== undefined) {
      silence(fd)
      this.#held = tryDuplicate(fd)
      if (this.#held !== undefined) this.#options.budget.open += half
    }
    close(towardsClient)
    towardsUpstream.destroy()
  }

  abort(end: SessionEnd): void {
    if (this.#isOver) return
    const { splicing, family } = this.#options
    this.#carriage = splicing.settle(this.index, this.serial, this.family)
    splicing.sever(this.index, this.serial, family)
    this.#end(end)
  }

  release(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#sockets = undefined
    this.#options.over()
  }

  leave(): void {
    if (this.#isOver || !this.isSilent || !this.#options.keeps) return
    const carriage = this.#options.splicing.settle(this.index, this.serial, this.family)
    if (carriage.state !== PairState.spliced) return
    this.#carriage = carriage
    this.#isOver = true
    this.#isLeft = true
    this.#ended?.({ how: 'kept' })
  }

  forget(): void {
    const { splicing, addresses } = this.#options
    splicing.forget(addresses)
  }

  /** Lets go of the port. */
  close(): void {
    if (this.#held === undefined) return
    closeSync(this.#held)
    this.#options.budget.open -= half
    this.#held = undefined
  }

  /** What an earlier process has left. */
  #adopt(): void {
    const { addresses, family, budget } = this.#options
    const { source, sourcePort, destination, destinationPort } = addresses.fromUpstream
    this.#silent = undefined
    try {
      const [here, there] = [
        { address: destination, port: destinationPort },
        { address: source, port: sourcePort },
      ]
      this.#held = holdPort(family, here, there)
      budget.open += half
    } catch {
      // Another has it by now, or its address is gone: nothing that this connection would notice.
    }
  }

  #end(end: SessionEnd): void {
    this.silence()
    this.release()
    this.close()
    this.#ended?.(end)
    this.#ended = undefined
  }
}

/** Of a connection's two descriptors, a spliced one keeps one. */
const half = 0.5

/** Without a descriptor left, its port may be taken again: better than to lose the connection. */
function tryDuplicate(fd: number): number | undefined {
  try {
    return duplicate(fd)
  } catch {
    return undefined
  }
}

function close(socket: Socket): void {
  const fd = descriptor(socket)
  if (fd !== undefined) silence(fd)
  socket.destroy()
}

/** undefined once it is closed: the number may belong to another by now. */
function descriptor(socket: Socket): number | undefined {
  const handle = (socket as unknown as { _handle: { fd: number } | null })._handle
  return handle !== null && handle.fd >= 0 ? handle.fd : undefined
}
