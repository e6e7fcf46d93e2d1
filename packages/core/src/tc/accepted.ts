import type { Socket } from 'node:net'
import type { Fastpath, Flow, FlowKey } from '@tproxy/bpf'
import { type Endpoint, endpointOf, formatEndpoint } from '../endpoint.ts'
import { GaveUp, TproxyError } from '../errors.ts'
import type { ProcessInfo } from '../process.ts'
import type { Remember, Remembered } from '../remember.ts'
import type { Accepted } from '../transport.ts'
import type { Alone } from './alone.ts'
import type { Device } from './devices.ts'
import type { Dialler } from './dial.ts'
import type { Held } from './held.ts'
import { goneStream, TcpSocket } from './tcp-socket.ts'

/** What all connections of an interface have in common. */
export interface Acceptance {
  readonly device: Device
  readonly dialler: Dialler
  readonly fastpath?: Fastpath
  readonly remember: (
    flow: Flow,
    destination: Endpoint,
    verdict: Remembered['verdict'],
    how: Remember,
  ) => Remembered | undefined
  /** Whether what needs nobody to carry it may be left alone. */
  readonly leavesAlone: () => boolean
  /** Whether that goes on when this process ends in order. */
  readonly keeps: boolean
  /** Lets the program of a connection speak, where its window was closed. */
  readonly admit?: (key: FlowKey, family: 4 | 6) => void
  readonly describe: (
    flow: Flow | undefined,
    ends: Pick<Accepted, 'source' | 'destination' | 'interface'>,
  ) => Pick<Accepted, 'process' | 'rule' | 'via'>
}

/** In milliseconds: what the kernel hands over at once is waited for so long, where somebody wants it at once. */
const patienceMs = 50

/** A connection that the kernel has handed to one of our listeners, or that waits for that. */
export class AcceptedConnection implements Accepted {
  readonly source: Endpoint
  readonly destination: Endpoint
  readonly interface: string
  readonly process: ProcessInfo | undefined
  readonly rule: number | undefined
  readonly via: string | undefined
  readonly mark: number | undefined
  readonly dscp: number | undefined
  #end: TcpSocket | undefined
  #held: Held | undefined
  #accepting: PromiseWithResolvers<void> | undefined
  /** Whether nobody came, or nobody waits any more. */
  #isGone = false
  readonly #acceptance: Acceptance
  /** What the kernel noted at its SYN. */
  #flow: Flow | undefined
  #key: FlowKey | undefined
  #isAdmitted = false

  /** `key`: what the socket receives; it may be filled in again. `from`: our end of it, or where that is to come from. */
  constructor(key: FlowKey, from: TcpSocket | Held, flow: Flow | undefined, acceptance: Acceptance) {
    this.source = endpointOf(key.source, key.sourcePort)
    this.destination = endpointOf(key.destination, key.destinationPort)
    this.interface = acceptance.device.interface.name
    const { process, rule, via } = acceptance.describe(flow, this)
    this.process = process
    this.rule = rule
    this.via = via
    this.mark = flow?.mark
    this.dscp = flow?.dscp
    if (from instanceof TcpSocket) this.#end = from
    else this.#held = from
    this.#flow = flow
    this.#key = { ...key, source: new Uint8Array(key.source), destination: new Uint8Array(key.destination) }
    this.#acceptance = acceptance
  }

  /** What the socket receives, as the kernel's maps know it; undefined once the connection is let go. */
  get key(): FlowKey | undefined {
    return this.#key
  }

  /** Our end of it; undefined where it was not accepted. */
  get end(): TcpSocket | undefined {
    return this.#end
  }

  /** Whoever wants it reads what the program says. */
  get socket(): Socket {
    if (this.#end === undefined) this.#acceptNow()
    this.admit()
    return this.#end?.stream ?? goneStream
  }

  whenGone(callback: () => void): void {
    this.#held?.whenGivenUp(callback)
  }

  accept(): Promise<void> | undefined {
    if (this.#end !== undefined || this.#held === undefined) return undefined
    if (this.#accepting === undefined) {
      if (!this.#held.waits) return undefined
      const accepting = Promise.withResolvers<void>()
      this.#accepting = accepting
      // Who does not wait for it hears of it by other ways.
      accepting.promise.catch(() => {})
      this.#held.accept((end) => {
        if (end === undefined || this.#isGone) {
          this.#isGone = true
          end?.reset()
          accepting.reject(new GaveUp())
        } else {
          this.#end = end
          accepting.resolve()
        }
      })
    }
    return this.#end === undefined ? this.#accepting.promise : undefined
  }

  /** For who cannot wait. The kernel hands it over at once, unless the program's socket is being used at this very moment. */
  #acceptNow(): void {
    const accepting = this.accept()
    if (accepting === undefined) return
    for (let left = patienceMs; this.#end === undefined && !this.#isGone && left > 0; left--) {
      Atomics.wait(nobody, 0, 0, 1)
      this.#held?.lookForIt()
    }
    if (this.#end === undefined) this.#isGone = true
  }

  /** Lets the program speak. To be called when it is known who carries that, or somebody wants to hear it. */
  admit(): void {
    if (this.#isAdmitted || this.#key === undefined) return
    this.#isAdmitted = true
    try {
      this.#acceptance.admit?.(this.#key, this.destination.family)
    } catch {
      // Its kernel asks by itself, a little later.
    }
  }

  reset(): void {
    if (this.#held?.waits === true) this.#held.refuse()
    else if (this.#end !== undefined) this.#end.reset()
    else this.#isGone = true
  }

  direct(signal: AbortSignal, isRead: boolean): TcpSocket | Promise<TcpSocket | Alone> {
    const { leavesAlone, keeps } = this.#acceptance
    if (this.#held?.waits === true && !isRead && leavesAlone()) return this.#held.leaveAlone(signal, keeps)
    if (this.#key === undefined)
      throw new TproxyError(
        'E_STATE',
        `connect to ${formatEndpoint(this.destination)}: the kernel carries that already`,
        { hint: 'ask for it once, when it is decided' },
      )
    const { source, sourcePort, destination, destinationPort } = this.#key
    const from = { address: source, port: sourcePort, family: this.source.family }
    const to = { address: destination, port: destinationPort, family: this.destination.family }
    const device = this.#flow?.bound === 1 ? this.interface : undefined
    return this.#acceptance.dialler.dial(from, to, device, signal)
  }

  closeInOrder(): void {
    this.#end?.closeInOrder()
  }

  remember(verdict: Remembered['verdict'], how: Remember): Remembered | undefined {
    return this.#flow && this.#acceptance.remember(this.#flow, this.destination, verdict, how)
  }

  /** What the kernel cannot do for lack of memory costs speed, and no connection. */
  accelerate(): void {
    const fd = this.#end?.descriptor
    if (fd === undefined || this.#key === undefined) return
    try {
      this.#acceptance.fastpath?.join(this.#key, fd)
    } catch {
      // It goes on by TCP.
    }
  }

  letGo(): void {
    this.#held = undefined
    this.#accepting = undefined
    this.#flow = undefined
    this.#key = undefined
  }
}

/** Nobody ever wakes who waits for this. */
const nobody = new Int32Array(new SharedArrayBuffer(4))
