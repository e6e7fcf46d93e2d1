import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import {
  type Arming,
  type Carriage,
  duplicate,
  type FlowKey,
  Limit,
  type PairEvent,
  PairState,
  Splicing,
  silence,
  Unfit,
} from '@tproxy/bpf'
import { addressBytes, type Endpoint, endpoint } from '../endpoint.ts'
import { reason, TproxyError } from '../errors.ts'
import type { SessionEnd } from '../session.ts'
import type { Accepted, Splice, SpliceOptions } from '../transport.ts'
import type { Budget } from './acceptor.ts'

/** Between looks at what our sockets still hold; doubled up to a second. */
const settleMs = 2

/** A pair that has ended answers a repeated last segment for so long. */
const lingerMs = 1_000

/** Every pair is looked at this often: for those that are idle, and for events that were lost. */
const roundMs = 5_000

const reasons: Readonly<Record<number, string>> = {
  [Unfit.gone]: 'a socket is gone',
  [Unfit.ending]: 'one direction has ended',
  [Unfit.timestamps]: 'timestamps differ',
  [Unfit.sack]: 'selective acknowledgement differs',
  [Unfit.ecn]: 'congestion notification differs',
  [Unfit.signed]: 'segments are signed',
  [Unfit.segments]: 'the upstream takes smaller segments',
  [Unfit.interface]: 'the upstream is reached by another interface',
  [Unfit.full]: 'no memory',
}

interface Options {
  readonly splicing: Splicing
  readonly ifindexOf: (name: string) => number | undefined
  readonly budget: Budget
}

/** What runs in the kernel, and what is on its way there. */
export class Splicer implements Disposable {
  readonly #options: Options
  readonly #pairs = new Map<number, Pair>()
  /** Those whose sockets still hold something. */
  readonly #settling = new Set<Pair>()
  /** Those that have ended, the longest first. */
  readonly #lingering: { pair: Pair; until: number }[] = []
  readonly #free: number[] = []
  readonly #events: { close(): void }
  readonly #round: NodeJS.Timeout
  #settleTimer: NodeJS.Timeout | undefined
  #lingerTimer: NodeJS.Timeout | undefined
  #used = 0
  #serial = 0

  constructor(options: Options) {
    this.#options = options
    this.#events = options.splicing.watch((event) => this.#changed(event))
    this.#round = setInterval(() => this.#look(), roundMs).unref()
  }

  /** See `Transport.splice`. */
  splice(accepted: Accepted, upstream: Duplex, options: SpliceOptions): Splice | string {
    const { socket, source, destination } = accepted
    if (Object.getPrototypeOf(upstream) !== Socket.prototype) return 'the upstream is no plain socket'
    const towards = upstream as Socket
    const [from, to] = [ends(towards, 'local'), ends(towards, 'remote')]
    if (from === undefined || to === undefined) return 'a socket is gone'
    if (to.family !== destination.family) return 'the upstream has another IP version'
    if (unsent(socket) || unsent(towards)) return 'something is still to be sent'
    const ifindex = accepted.interface === undefined ? undefined : this.#options.ifindexOf(accepted.interface)
    const index = this.#free.pop() ?? (this.#used < Limit.pairs ? this.#used++ : undefined)
    if (ifindex === undefined || index === undefined) {
      if (index !== undefined) this.#free.push(index)
      return index === undefined ? `${Limit.pairs} connections are spliced` : 'its interface is gone'
    }
    // 32 bits, and never 0.
    this.#serial = (this.#serial % 0xffff_ffff) + 1
    const serial = this.#serial
    const client = key(source, destination)
    const arming: Arming = {
      pair: index,
      serial,
      ifindex,
      unreadUp: socket.readableLength,
      unreadDown: towards.readableLength,
      client,
      upstream: key(from, to),
    }
    const carriage = this.#arm(arming)
    if (typeof carriage === 'string' || carriage.state === PairState.unfit) {
      this.#free.push(index)
      return typeof carriage === 'string' ? carriage : (reasons[carriage.unfit] ?? `${carriage.unfit}`)
    }
    const pair = new Pair({
      ...options,
      index,
      serial,
      family: destination.family,
      client,
      fromUpstream: key(to, from),
      sockets: [socket, towards],
      splicing: this.#options.splicing,
      budget: this.#options.budget,
      over: () => this.#over(pair),
    })
    this.#pairs.set(index, pair)
    // After the caller has heard of it.
    if (carriage.state === PairState.spliced) {
      pair.settled = true
      queueMicrotask(() => pair.silence())
    } else if (carriage.state === PairState.carried) this.#settle(pair)
    return pair
  }

  [Symbol.dispose](): void {
    clearInterval(this.#round)
    clearTimeout(this.#settleTimer)
    this.#events.close()
    for (const pair of this.#pairs.values()) pair.abort({ how: 'aborted' })
    clearTimeout(this.#lingerTimer)
  }

  /** What the kernel cannot do for lack of memory, the relay can. */
  #arm(arming: Arming): Carriage | string {
    try {
      return this.#options.splicing.arm(arming)
    } catch (error) {
      return reason(error)
    }
  }

  #over(pair: Pair): void {
    this.#settling.delete(pair)
    this.#lingering.push({ pair, until: performance.now() + lingerMs })
    this.#lingerTimer ??= setTimeout(() => this.#forget(), lingerMs).unref()
  }

  #forget(): void {
    const now = performance.now()
    const left = this.#lingering.findIndex(({ until }) => until > now)
    for (const { pair } of this.#lingering.splice(0, left < 0 ? this.#lingering.length : left)) {
      pair.forget()
      this.#pairs.delete(pair.index)
      this.#free.push(pair.index)
    }
    const [next] = this.#lingering
    this.#lingerTimer = next && setTimeout(() => this.#forget(), next.until - now).unref()
  }

  #changed({ pair: index, serial, state }: PairEvent): void {
    const pair = this.#pairs.get(index)
    if (pair?.serial !== serial) return
    if (state === PairState.carried) this.#settle(pair)
    else pair.update(this.#options.splicing.settle(index, serial))
  }

  #settle(pair: Pair): void {
    this.#settling.add(pair)
    this.#settleTimer ??= setTimeout(() => this.#settleAll(), settleMs)
  }

  #settleAll(): void {
    this.#settleTimer = undefined
    const now = performance.now()
    for (const pair of this.#settling)
      if (pair.due(now)) {
        pair.update(this.#options.splicing.settle(pair.index, pair.serial))
        if (pair.isSilent) this.#settling.delete(pair)
      }
    if (this.#settling.size > 0) this.#settleTimer = setTimeout(() => this.#settleAll(), settleMs)
  }

  #look(): void {
    for (const pair of this.#pairs.values())
      pair.update(this.#options.splicing.settle(pair.index, pair.serial))
  }
}

interface PairOptions extends SpliceOptions {
  readonly index: number
  readonly serial: number
  readonly family: 4 | 6
  readonly client: FlowKey
  readonly fromUpstream: FlowKey
  readonly sockets: readonly [towardsClient: Socket, towardsUpstream: Socket]
  readonly splicing: Splicing
  readonly budget: Budget
  readonly over: () => void
}

/** One spliced connection. */
class Pair implements Splice {
  readonly index: number
  readonly serial: number
  settled = false
  readonly #options: Omit<PairOptions, 'sockets' | keyof SpliceOptions>
  readonly #limits: { readonly idleMs: number; readonly halfClosedMs: number }
  /** What is not needed any more is let go: the pair itself may live long. */
  #sockets: readonly [Socket, Socket] | undefined
  #silent: (() => void) | undefined
  #ended: ((end: SessionEnd) => void) | undefined
  /** Holds the port of our connection to the upstream. */
  #held: number | undefined
  #carriage: Carriage | undefined
  #isOver = false
  #nextLook = 0
  #interval = settleMs

  constructor({ sockets, silent, ended, idleMs, halfClosedMs, ...options }: PairOptions) {
    this.#options = options
    this.#limits = { idleMs, halfClosedMs }
    this.#sockets = sockets
    this.#silent = silent
    this.#ended = ended
    this.index = options.index
    this.serial = options.serial
  }

  get bytes(): { sent: number; received: number } {
    const { splicing } = this.#options
    if (!this.#isOver) this.#carriage = splicing.settle(this.index, this.serial)
    return { sent: Number(this.#carriage?.sent ?? 0), received: Number(this.#carriage?.received ?? 0) }
  }

  get isSilent(): boolean {
    return this.#sockets === undefined
  }

  /** Whether it is time to look whether our sockets have done their work. */
  due(now: number): boolean {
    if (now < this.#nextLook) return false
    this.#nextLook = now + this.#interval
    this.#interval = Math.min(this.#interval * 2, 1000)
    return true
  }

  update(carriage: Carriage): void {
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
      if (this.#held !== undefined) this.#options.budget.open += held
    }
    close(towardsClient)
    towardsUpstream.destroy()
  }

  abort(end: SessionEnd): void {
    if (this.#isOver) return
    const { splicing, family } = this.#options
    this.#carriage = splicing.settle(this.index, this.serial)
    splicing.sever(this.index, this.serial, family)
    this.#end(end)
  }

  release(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#sockets = undefined
    this.#options.over()
  }

  forget(): void {
    const { splicing, client, fromUpstream } = this.#options
    splicing.forget(this.index, client, fromUpstream)
  }

  #end(end: SessionEnd): void {
    this.silence()
    this.release()
    if (this.#held !== undefined) {
      closeSync(this.#held)
      this.#options.budget.open -= held
    }
    this.#held = undefined
    this.#ended?.(end)
    this.#ended = undefined
  }
}

/** Of a connection's two descriptors, a spliced one keeps one. */
const held = 0.5

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

function ends(socket: Socket, side: 'local' | 'remote'): Endpoint | undefined {
  const { [`${side}Address`]: address, [`${side}Port`]: port } = socket as unknown as Record<string, unknown>
  return typeof address === 'string' && typeof port === 'number' ? endpoint(address, port) : undefined
}

const unsent = (socket: Socket) =>
  socket.writableLength > 0 ||
  socket.writableEnded ||
  socket.readableEnded ||
  socket.readableEncoding !== null

const key = (from: Endpoint, to: Endpoint): FlowKey => ({
  source: addressBytes(from.address),
  destination: addressBytes(to.address),
  sourcePort: from.port,
  destinationPort: to.port,
})
