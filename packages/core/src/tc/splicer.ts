import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import {
  type Arming,
  type Carriage,
  type FlowKey,
  Limit,
  type PairAddresses,
  type PairEvent,
  PairState,
  type Splicing,
  Unfit,
} from '@tproxy/bpf'
import { addressBytes, type Endpoint, endpoint, endpointOf } from '../endpoint.ts'
import { reason } from '../errors.ts'
import type { SessionEnd } from '../session.ts'
import type { Accepted, Adopted, Splice, SpliceOptions } from '../transport.ts'
import type { Budget } from './acceptor.ts'
import { lingerMs, Pair, settleMs } from './pair.ts'

/** Every pair is looked at this often: for those that are idle, and for events that were lost. */
const roundMs = 5_000

/** A round is made in steps, so that thousands of pairs do not hold up new connections. */
const stepMs = 250

const reasons: Readonly<Record<number, string>> = {
  [Unfit.gone]: 'a socket is gone',
  [Unfit.ending]: 'one direction has ended',
  [Unfit.timestamps]: 'timestamps differ',
  [Unfit.sack]: 'selective acknowledgement differs',
  [Unfit.ecn]: 'congestion notification differs',
  [Unfit.signed]: 'segments are signed',
  [Unfit.segments]: 'the upstream takes smaller segments',
  [Unfit.windows]: 'a window is too small to be scaled',
  [Unfit.interface]: 'the upstream is reached by another interface',
  [Unfit.intercepted]: 'another transparent proxy has it',
  [Unfit.full]: 'no memory',
}

interface Options {
  readonly splicing: Splicing
  readonly ifindexOf: (name: string) => number | undefined
  readonly budget: Budget
  /** Of adopted connections. */
  readonly limits: Pick<SpliceOptions, 'idleMs' | 'halfClosedMs'>
  /** Whether connections outlive us. */
  readonly keeps: boolean
}

/** What runs in the kernel, and what is on its way there. */
export class Splicer implements Disposable {
  /** What was left by an earlier process. */
  readonly adopted: readonly Adopted[]
  readonly #options: Options
  readonly #pairs = new Map<number, Pair>()
  /** Those whose sockets still hold something. */
  readonly #settling = new Set<Pair>()
  /** Those that have ended, the longest first. */
  readonly #lingering: { pair: Pair; until: number }[] = []
  readonly #free: number[] = []
  readonly #events: { close(): void }
  readonly #round: NodeJS.Timeout
  #unseen: Iterator<Pair, undefined> | undefined
  #settleTimer: NodeJS.Timeout | undefined
  #lingerTimer: NodeJS.Timeout | undefined
  #used = 0
  #serial = 0

  constructor(options: Options) {
    this.#options = options
    this.#events = options.splicing.watch((event) => this.#changed(event))
    this.#round = setInterval(() => this.#look(), stepMs).unref()
    this.adopted = !options.keeps ? [] : this.#adoptAll()
    if (this.#pairs.size === 0) options.splicing.vacant = true
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
    const addresses = { pair: index, serial, client, fromUpstream: key(to, from) }
    const arming: Arming = {
      pair: index,
      serial,
      ifindex,
      unreadUp: socket.readableLength,
      unreadDown: towards.readableLength,
      client,
      upstream: key(from, to),
    }
    if (this.#pairs.size === 0) this.#options.splicing.vacant = false
    const carriage = this.#arm(arming)
    if (typeof carriage === 'string' || carriage.state === PairState.unfit) {
      this.#give(index)
      return typeof carriage === 'string' ? carriage : (reasons[carriage.unfit] ?? `${carriage.unfit}`)
    }
    const pair = this.#add(addresses, destination.family, [socket, towards], options)
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
    for (const pair of this.#pairs.values()) {
      pair.leave()
      pair.abort({ how: 'aborted' })
      pair.close()
      if (!pair.isLeft) pair.forget()
    }
    clearTimeout(this.#lingerTimer)
  }

  #add(
    addresses: PairAddresses,
    family: 4 | 6,
    sockets: readonly [Socket, Socket] | undefined,
    options: SpliceOptions,
  ): Pair {
    const { splicing, budget, keeps } = this.#options
    const pair = new Pair({
      ...options,
      addresses,
      family,
      sockets,
      splicing,
      budget,
      keeps,
      over: () => this.#over(pair),
    })
    this.#pairs.set(addresses.pair, pair)
    return pair
  }

  #adoptAll(): Adopted[] {
    const found = [...this.#options.splicing.pairs()]
    const adopted = found.flatMap((addresses) => this.#adopt(addresses) ?? [])
    for (const { pair, serial } of found) {
      this.#used = Math.max(this.#used, pair + 1)
      this.#serial = Math.max(this.#serial, serial)
    }
    for (let index = 0; index < this.#used; index++) if (!this.#pairs.has(index)) this.#free.push(index)
    return adopted
  }

  #adopt(addresses: PairAddresses): Adopted | undefined {
    const { splicing, limits } = this.#options
    const { client, fromUpstream } = addresses
    const destination = endpointOf(client.destination, client.destinationPort)
    const { state } = splicing.settle(addresses.pair, addresses.serial, destination.family)
    if (state !== PairState.spliced && state !== PairState.carried) {
      splicing.forget(addresses)
      return undefined
    }
    const { promise: ended, resolve } = Promise.withResolvers<SessionEnd>()
    const pair = this.#add(addresses, destination.family, undefined, {
      ...limits,
      silent: () => {},
      ended: resolve,
    })
    // What its process still had to relay is lost.
    if (state === PairState.carried) {
      pair.abort({ how: 'aborted' })
      return undefined
    }
    return {
      source: endpointOf(client.source, client.sourcePort),
      destination,
      upstream: endpointOf(fromUpstream.source, fromUpstream.sourcePort),
      get bytes() {
        return pair.bytes
      },
      get lasts() {
        return !pair.isOver
      },
      abort: (end) => pair.abort(end),
      ended,
    }
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
      this.#give(pair.index)
    }
    const [next] = this.#lingering
    this.#lingerTimer = next && setTimeout(() => this.#forget(), next.until - now).unref()
  }

  #give(index: number): void {
    this.#free.push(index)
    if (this.#pairs.size === 0) this.#options.splicing.vacant = true
  }

  #changed({ pair: index, serial, ...event }: PairEvent): void {
    const pair = this.#pairs.get(index)
    if (pair?.serial !== serial) return
    if (event.state === PairState.carried) this.#settle(pair)
    else pair.update({ ...event, idleNs: 0n, alone: 0, half: 0 })
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
        pair.update(this.#options.splicing.settle(pair.index, pair.serial, pair.family))
        if (pair.isSilent) this.#settling.delete(pair)
      }
    if (this.#settling.size > 0) this.#settleTimer = setTimeout(() => this.#settleAll(), settleMs)
  }

  #look(): void {
    for (let left = Math.ceil((this.#pairs.size * stepMs) / roundMs); left > 0; left--) {
      this.#unseen ??= this.#pairs.values()
      const { value: pair } = this.#unseen.next()
      if (pair === undefined) {
        this.#unseen = undefined
        return
      }
      pair.update(this.#options.splicing.settle(pair.index, pair.serial, pair.family))
    }
  }
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
