import {
  accept,
  askForSegments,
  closeDescriptor,
  emptyFlow,
  type Flow,
  type FlowKey,
  localEnd,
  NativeError,
  type SocketEnd,
  watchListener,
} from '@tproxy/bpf'
import { reason } from '../errors.ts'
import type { Accepted } from '../transport.ts'
import { type Acceptance, AcceptedConnection } from './accepted.ts'
import type { Listener } from './devices.ts'
import type { Held } from './held.ts'
import { TcpSocket } from './tcp-socket.ts'

export interface AcceptorOptions extends Acceptance {
  /** Of a listening transparent socket. The acceptor owns it. */
  readonly fd: number
  readonly budget: Budget
  readonly takeFlow: (key: FlowKey) => Flow | undefined
  readonly accepted: (accepted: Accepted) => void
  readonly warn: (message: string) => void
}

/** Connections at once, over all listeners: beyond what file descriptors allow, new ones are refused. */
export interface Budget {
  readonly limit: number
  open: number
}

/** At a time, before others have their turn. */
const burst = 64

/** When there was no descriptor or memory left. */
const retryMs = 100

/** Accepts what the kernel hands to one transparent listener. */
export class Acceptor implements Listener {
  readonly #options: AcceptorOptions
  readonly #own: SocketEnd
  /** Those that are to be somebody's, by their addresses. */
  readonly #expected = new Map<string, (end: TcpSocket | undefined) => void>()
  #watch: { close(): void } | undefined
  #retry: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(options: AcceptorOptions) {
    this.#options = options
    this.#own = localEnd(options.fd)
    this.adapt()
    this.#begin()
  }

  adapt(): void {
    const { fd, device } = this.#options
    askForSegments(fd, this.#own.family, device.interface.mtu)
  }

  get family(): 4 | 6 {
    return this.#own.family
  }

  /** Of the interface that its connections leave by, as it is now. */
  get ifindex(): number {
    return this.#options.device.interface.ifindex
  }

  /** Describes a connection that is held. */
  hold(held: Held): AcceptedConnection {
    const { key, flow: known } = held.held
    return new AcceptedConnection(key, held, known, this.#options)
  }

  /** Calls back with our end of the one that sends from there, when it comes; with nothing where there are too many. */
  expect(key: FlowKey, came: (end: TcpSocket | undefined) => void): void {
    this.#expected.set(nameOf(key), came)
    this.take()
  }

  /** Does not call back any more. */
  forget(key: FlowKey): void {
    this.#expected.delete(nameOf(key))
  }

  /** Takes what has come up to what is expected. */
  take(): void {
    const before = this.#expected.size
    while (!this.#isClosed && this.#expected.size >= before && before > 0) {
      const accepted = this.#accept()
      if (accepted === undefined) return
      this.#take(accepted)
    }
  }

  #accept(): number | undefined {
    try {
      return accept(this.#options.fd, flow)
    } catch (error) {
      if (!(error instanceof NativeError)) throw error
      // No descriptor is left, and those who wait here hold one each, towards an upstream.
      const expected = [...this.#expected.values()]
      this.#expected.clear()
      for (const came of expected) came(undefined)
      return undefined
    }
  }

  [Symbol.dispose](): void {
    this.#isClosed = true
    for (const came of this.#expected.values()) came(undefined)
    clearTimeout(this.#retry)
    this.#watch?.close()
    closeDescriptor(this.#options.fd)
  }

  #begin(): void {
    this.#watch = watchListener(this.#options.fd, () => this.#takeNext(burst))
  }

  /** One, and when it has gone as far as it goes by itself the next: none waits for the decisions about all that came with it. */
  #takeNext(left: number): void {
    const { fd, warn, device } = this.#options
    if (left === 0 || this.#isClosed) return
    try {
      const accepted = accept(fd, flow)
      if (accepted === undefined) return
      this.#take(accepted)
      // Ticks go before microtasks, of which decisions are made, unless one of these has asked for the tick.
      queueMicrotask(() => process.nextTick(() => this.#takeNext(left - 1)))
    } catch (error) {
      if (!(error instanceof NativeError)) throw error
      warn(`accept on ${device.interface.name}: ${reason(error)}`)
      // The listener stays readable: to look again at once would be to spin.
      this.#watch?.close()
      this.#retry = setTimeout(() => this.#begin(), retryMs)
    }
  }

  #take(fd: number): void {
    const { budget, takeFlow, accepted, warn } = this.#options
    // Somebody dialled the listener itself: there is no destination to go to, and we are nobody's open proxy.
    if (flow.destinationPort === this.#own.port && sameBytes(flow.destination, this.#own.address)) {
      closeDescriptor(fd)
      return
    }
    const came = this.#claim()
    if (budget.open >= budget.limit) {
      takeFlow(flow)
      warn(`refused a connection: ${budget.limit} are open, as many as file descriptors allow`)
      closeDescriptor(fd)
      came?.(undefined)
      return
    }
    budget.open++
    const end = new TcpSocket(fd, () => {
      budget.open--
    })
    try {
      const known = takeFlow(flow)
      if (came !== undefined) came(end)
      else accepted(new AcceptedConnection(flow, end, known, this.#options))
    } catch (error) {
      end.reset()
      throw error
    }
  }

  /** Who expects the one that is being accepted. */
  #claim(): ((end: TcpSocket | undefined) => void) | undefined {
    if (this.#expected.size === 0) return undefined
    const name = nameOf(flow)
    const came = this.#expected.get(name)
    this.#expected.delete(name)
    return came
  }
}

/** Of the connection that is being accepted. */
const flow = emptyFlow()

const sameBytes = (a: Uint8Array, b: Uint8Array) => a.every((byte, at) => byte === b[at])

const nameOf = ({ source, destination, sourcePort, destinationPort }: FlowKey) =>
  `${sourcePort} ${destinationPort} ${source.join()} ${destination.join()}`
