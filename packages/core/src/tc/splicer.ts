import {
  type ArmRequest,
  type Carriage,
  Limit,
  type PairAddresses,
  type PairEvent,
  PairState,
  type Splicing,
  Unfit,
} from '@tproxy/bpf'
import { endpointOf } from '../endpoint.ts'
import { reason } from '../errors.ts'
import type { SessionEnd } from '../session.ts'
import type { Accepted, Adopted, LazyStream, Splice, SpliceListener } from '../transport.ts'
import { AcceptedConnection } from './accepted.ts'
import type { Budget } from './acceptor.ts'
import { Later } from './later.ts'
import { lingerMs, Pair, type PairOwner, settleMs } from './pair.ts'
import { TcpSocket } from './tcp-socket.ts'

/** Every pair is looked at this often: for those that are idle, and for events that were lost. */
const roundMs = 5_000

/** What has left a program's socket is with ours by then, however busy the processors are. */
const retireMs = 50

/** A round is made in steps, so that thousands of pairs do not hold up new connections. */
const stepMs = 250

const never = Number.POSITIVE_INFINITY

const reasons: Readonly<Record<number, string>> = {
  [Unfit.gone]: 'a socket is gone',
  [Unfit.ending]: 'one direction has ended',
  [Unfit.timestamps]: 'timestamps differ',
  [Unfit.sack]: 'selective acknowledgement differs',
  [Unfit.ecn]: 'congestion notification differs',
  [Unfit.signed]: 'segments are signed',
  [Unfit.segments]: 'the upstream takes smaller segments',
  [Unfit.windows]: 'a window is too small to be scaled',
  [Unfit.family]: 'the upstream has another IP version',
  [Unfit.far]: 'the upstream is far, and the program has timed a shorter way',
  [Unfit.interface]: 'the upstream is reached by another interface',
  [Unfit.intercepted]: 'another transparent proxy has it',
  [Unfit.full]: 'no memory',
}

interface Options {
  readonly splicing: Splicing
  readonly ifindexOf: (name: string) => number | undefined
  readonly budget: Budget
  /** Of adopted connections. */
  readonly limits: Pick<SpliceListener, 'idleMs' | 'halfClosedMs'>
  /** Whether connections outlive us. */
  readonly keeps: boolean
}

/** What runs in the kernel, and what is on its way there. */
export class Splicer implements Disposable {
  /** What was left by an earlier process. */
  readonly adopted: readonly Adopted[]
  readonly #options: Options
  readonly #owner: PairOwner
  /** By index, which the kernel knows them by. Not a Map: with thousands that come and go, it costs 1 µs a connection. */
  readonly #pairs: (Pair | undefined)[] = []
  /** Those whose sockets still hold something. */
  readonly #settling = new Set<Pair>()
  /** Those that have ended. */
  readonly #lingering = new Later<Pair>(lingerMs, (pair) => this.#forget(pair))
  /**
   * A segment that passed our hooks before there was a pair may still be on its way to the accepted sockets of these. Closed,
   * they would answer with a reset; silent, they do not answer, and it comes again by the new way.
   */
  readonly #silent = new Later<Pair>(retireMs, (pair) => pair.retire())
  readonly #free: number[] = []
  readonly #events: { close(): void }
  readonly #round: NodeJS.Timeout
  /** Index of who is looked at next. */
  #next = 0
  #settleTimer: NodeJS.Timeout | undefined
  #settleTime = never
  #count = 0
  #serial = 0

  constructor(options: Options) {
    this.#options = options
    const { splicing, budget, keeps } = options
    this.#owner = {
      splicing,
      budget,
      keeps,
      silent: (pair) => this.#silent.add(pair),
      over: (pair) => this.#over(pair),
    }
    this.#events = options.splicing.watch((event) => this.#changed(event))
    this.#round = setInterval(() => this.#look(), stepMs).unref()
    this.adopted = !options.keeps ? [] : this.#adoptAll()
    if (this.#count === 0) options.splicing.vacant = true
  }

  /** See `Transport.splice`. */
  splice(accepted: Accepted, upstream: LazyStream, listener: SpliceListener): Splice | string {
    if (!(accepted instanceof AcceptedConnection)) return 'it was not accepted by a listener of ours'
    const towardsUpstream = upstream instanceof TcpSocket ? upstream : undefined
    if (towardsUpstream === undefined) return 'the upstream is no plain socket'
    const { end: towardsClient, key: client, destination } = accepted
    const server = towardsUpstream.descriptor
    if (towardsClient?.descriptor === undefined || client === undefined || server === undefined)
      return 'a socket is gone'
    if (towardsClient.isBusy || towardsUpstream.isBusy) return 'something is still to be sent'
    const ifindex = this.#options.ifindexOf(accepted.interface)
    if (ifindex === undefined) return 'its interface is gone'
    const index =
      this.#free.pop() ?? (this.#pairs.length < Limit.pairs ? this.#pairs.push(undefined) - 1 : undefined)
    if (index === undefined) return `${Limit.pairs} connections are spliced`
    // 32 bits, and never 0.
    this.#serial = (this.#serial % 0xffff_ffff) + 1
    const serial = this.#serial
    if (this.#count === 0) this.#options.splicing.vacant = false
    const carriage = this.#arm({
      pair: index,
      serial,
      ifindex,
      unreadUp: towardsClient.held,
      unreadDown: towardsUpstream.held,
      client,
      family: destination.family,
      towardsUpstream: server,
    })
    if (typeof carriage === 'string' || carriage.state === PairState.unfit) {
      this.#give(index)
      return typeof carriage === 'string' ? carriage : (reasons[carriage.unfit] ?? `${carriage.unfit}`)
    }
    const pair = this.#add({ pair: index, serial }, destination.family, listener, [
      towardsClient,
      towardsUpstream,
    ])
    // The caller is to hear of it first.
    if (carriage.state === PairState.spliced) queueMicrotask(() => pair.silence())
    // Not even the addresses are known: all is relayed until then.
    else if (carriage.state === PairState.armed) queueMicrotask(() => pair.relay())
    else {
      pair.deliver()
      this.#settle(pair)
    }
    if (carriage.state !== PairState.armed) accepted.admit()
    return pair
  }

  [Symbol.dispose](): void {
    clearInterval(this.#round)
    clearTimeout(this.#settleTimer)
    this.#events.close()
    for (const pair of this.#pairs) {
      if (pair === undefined) continue
      pair.leave()
      pair.abort({ how: 'aborted' })
      pair.close()
      if (!pair.isLeft) pair.forget()
    }
    this.#lingering.cancel()
    this.#silent.now()
  }

  #add(
    { pair: index, serial }: Pick<PairAddresses, 'pair' | 'serial'>,
    family: 4 | 6,
    listener: SpliceListener,
    sockets: readonly [TcpSocket, TcpSocket] | undefined,
  ): Pair {
    const pair = new Pair({ index, serial, family, listener, sockets, owner: this.#owner })
    this.#pairs[index] = pair
    this.#count++
    return pair
  }

  #adoptAll(): Adopted[] {
    const found = [...this.#options.splicing.pairs()]
    for (const { pair, serial } of found) {
      while (this.#pairs.length <= pair) this.#pairs.push(undefined)
      this.#serial = Math.max(this.#serial, serial)
    }
    const adopted = found.flatMap((addresses) => this.#adopt(addresses) ?? [])
    for (const [index, pair] of this.#pairs.entries()) if (pair === undefined) this.#free.push(index)
    return adopted
  }

  #adopt(addresses: PairAddresses): Adopted | undefined {
    const { splicing, limits } = this.#options
    const { client, fromUpstream } = addresses
    const destination = endpointOf(client.destination, client.destinationPort)
    const { state } = splicing.settle(addresses.pair, addresses.serial, destination.family)
    if (state !== PairState.spliced && state !== PairState.carried) {
      splicing.forget(addresses.pair, addresses.serial, destination.family)
      return undefined
    }
    const { promise: ended, resolve } = Promise.withResolvers<SessionEnd>()
    const listener = { ...limits, relay: () => {}, silent: () => {}, ended: resolve }
    const pair = this.#add(addresses, destination.family, listener, undefined)
    pair.hold(
      { family: destination.family, address: fromUpstream.destination, port: fromUpstream.destinationPort },
      { family: destination.family, address: fromUpstream.source, port: fromUpstream.sourcePort },
    )
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
  #arm(request: ArmRequest): Carriage | string {
    try {
      return this.#options.splicing.arm(request)
    } catch (error) {
      return reason(error)
    }
  }

  #over(pair: Pair): void {
    this.#settling.delete(pair)
    this.#lingering.add(pair)
  }

  #forget(pair: Pair): void {
    pair.forget()
    this.#pairs[pair.index] = undefined
    this.#count--
    this.#give(pair.index)
  }

  #give(index: number): void {
    this.#free.push(index)
    if (this.#count === 0) this.#options.splicing.vacant = true
  }

  #changed({ pair: index, serial, state, by, sent, received }: PairEvent): void {
    const pair = this.#pairs[index]
    if (pair?.serial !== serial) return
    if (state === PairState.carried) this.#settle(pair)
    else pair.update({ state, by, sent, received, idleNs: 0n, alone: 0, half: 0 })
  }

  #settle(pair: Pair): void {
    this.#settling.add(pair)
    this.#settleAt(performance.now() + settleMs)
  }

  /** Looks at them then, if not before. */
  #settleAt(time: number): void {
    if (time >= this.#settleTime) return
    clearTimeout(this.#settleTimer)
    this.#settleTime = time
    const left = Math.max(0, Math.ceil(time - performance.now()))
    this.#settleTimer = setTimeout(() => this.#settleAll(), left)
  }

  #settleAll(): void {
    this.#settleTime = never
    const now = performance.now()
    for (const pair of this.#settling)
      if (pair.due(now)) {
        pair.deliver()
        pair.update(pair.settle())
        if (pair.isSilent) this.#settling.delete(pair)
      }
    let next = never
    for (const { nextLook } of this.#settling) next = Math.min(next, nextLook)
    // Those of many are seen to together.
    if (next < never) this.#settleAt(Math.max(next, now + settleMs))
  }

  #look(): void {
    for (let left = Math.ceil((this.#pairs.length * stepMs) / roundMs); left > 0; left--) {
      const pair = this.#pairs[this.#next++]
      if (this.#next >= this.#pairs.length) this.#next = 0
      if (pair !== undefined && !pair.isOver) pair.update(pair.settle())
    }
  }
}
