import type { Socket } from 'node:net'
import { endInOrder, type Fastpath, type Flow, type FlowKey } from '@tproxy/bpf'
import { type Endpoint, endpointOf, formatEndpoint } from '../endpoint.ts'
import { TproxyError } from '../errors.ts'
import type { ProcessInfo } from '../process.ts'
import type { Remember, Remembered } from '../remember.ts'
import type { Accepted } from '../transport.ts'
import type { Device } from './devices.ts'
import type { Dialler } from './dial.ts'
import type { TcpSocket } from './tcp-socket.ts'

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
  /** Lets the program of a connection speak, where its window was closed. */
  readonly admit?: (key: FlowKey, family: 4 | 6) => void
  readonly describe: (flow: Flow | undefined) => Pick<Accepted, 'process' | 'rule' | 'via'>
}

/** A connection that the kernel has handed to one of our listeners. */
export class AcceptedConnection implements Accepted {
  readonly source: Endpoint
  readonly destination: Endpoint
  readonly interface: string
  readonly process: ProcessInfo | undefined
  readonly rule: number | undefined
  readonly via: string | undefined
  readonly mark: number | undefined
  readonly dscp: number | undefined
  /** Our end of it. */
  readonly end: TcpSocket
  readonly #acceptance: Acceptance
  /** What the kernel noted at its SYN. */
  #flow: Flow | undefined
  #key: FlowKey | undefined
  #isAdmitted = false

  /** `key`: what the socket receives; it may be filled in again. */
  constructor(key: FlowKey, end: TcpSocket, flow: Flow | undefined, acceptance: Acceptance) {
    this.source = endpointOf(key.source, key.sourcePort)
    this.destination = endpointOf(key.destination, key.destinationPort)
    this.interface = acceptance.device.interface.name
    const { process, rule, via } = acceptance.describe(flow)
    this.process = process
    this.rule = rule
    this.via = via
    this.mark = flow?.mark
    this.dscp = flow?.dscp
    this.end = end
    this.#flow = flow
    this.#key = { ...key, source: new Uint8Array(key.source), destination: new Uint8Array(key.destination) }
    this.#acceptance = acceptance
  }

  /** What the socket receives, as the kernel's maps know it; undefined once the connection is let go. */
  get key(): FlowKey | undefined {
    return this.#key
  }

  /** Whoever wants it reads what the program says. */
  get socket(): Socket {
    this.admit()
    return this.end.stream
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
    this.end.reset()
  }

  direct(signal: AbortSignal): TcpSocket | Promise<TcpSocket> {
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
    const fd = this.end.descriptor
    if (fd !== undefined) endInOrder(fd)
  }

  remember(verdict: Remembered['verdict'], how: Remember): Remembered | undefined {
    return this.#flow && this.#acceptance.remember(this.#flow, this.destination, verdict, how)
  }

  /** What the kernel cannot do for lack of memory costs speed, and no connection. */
  accelerate(): void {
    const fd = this.end.descriptor
    if (fd === undefined || this.#key === undefined) return
    try {
      this.#acceptance.fastpath?.join(this.#key, fd)
    } catch {
      // It goes on by TCP.
    }
  }

  letGo(): void {
    this.#flow = undefined
    this.#key = undefined
  }
}
