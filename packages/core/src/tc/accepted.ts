import type { Socket } from 'node:net'
import { endInOrder, type Fastpath, type Flow, type FlowKey, type SocketEnd } from '@tproxy/bpf'
import { addressBytes, type Endpoint, endpointOf } from '../endpoint.ts'
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

  /** `key`: what the socket receives. */
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
    this.#acceptance = acceptance
  }

  get socket(): Socket {
    return this.end.stream
  }

  reset(): void {
    this.end.reset()
  }

  direct(signal: AbortSignal): TcpSocket | Promise<TcpSocket> {
    const [source, destination] = [socketEnd(this.source), socketEnd(this.destination)]
    const device = this.#flow?.bound === 1 ? this.interface : undefined
    return this.#acceptance.dialler.dial(source, destination, device, signal)
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
    if (fd === undefined) return
    try {
      this.#acceptance.fastpath?.join(keyOf(this), fd)
    } catch {
      // It goes on by TCP.
    }
  }

  letGo(): void {
    this.#flow = undefined
  }
}

/** A connection as the kernel's maps know it. */
export const keyOf = ({ source, destination }: Pick<Accepted, 'source' | 'destination'>): FlowKey => ({
  source: addressBytes(source.address),
  destination: addressBytes(destination.address),
  sourcePort: source.port,
  destinationPort: destination.port,
})

const socketEnd = ({ address, port, family }: Endpoint): SocketEnd => ({
  address: addressBytes(address),
  port,
  family,
})
