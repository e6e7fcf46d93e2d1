import { Counter, type FlowKey, Hook, SpliceCounter, type Steering, type TraceEvent } from '@tproxy/bpf'
import { Observable, type Subscriber } from 'rxjs'
import { addressBytes, endpoint, endpointOf } from '../endpoint.ts'
import { TproxyError } from '../errors.ts'
import type { TraceHook, TraceStep, TraceTarget } from '../trace.ts'

/** TC_ACT_UNSPEC, TC_ACT_OK, TC_ACT_SHOT and TC_ACT_REDIRECT of include/uapi/linux/pkt_cls.h. */
const decisions: Readonly<Record<number, TraceStep['decision']>> = {
  [-1]: 'next',
  0: 'sent',
  2: 'dropped',
  7: 'redirected',
}

/** By their bits, RFC 9293, 3.1. */
const flagNames = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'] as const

const flagsOf = (bits: number) => flagNames.filter((_, bit) => (bits >> bit) & 1)

const snake = (name: string) => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
const named = (values: Readonly<Record<string, number>>) =>
  new Map(Object.entries(values).map(([name, value]) => [value, name]))
const hooks = named(Hook)
const reasons = named(Counter)
const spliceReasons = named(SpliceCounter)

/** What our programs do with the packets of one destination, for one subscriber at a time, until disposed of. */
export class Tracer implements Disposable {
  readonly #steering: Steering
  readonly #interfaceName: (ifindex: number) => string | undefined
  #subscriber: Subscriber<TraceStep> | undefined

  constructor(steering: Steering, interfaceName: (ifindex: number) => string | undefined) {
    this.#steering = steering
    this.#interfaceName = interfaceName
  }

  trace({ address, port }: TraceTarget): Observable<TraceStep> {
    return new Observable((subscriber) => {
      const target = endpoint(address, port ?? 0)
      if (this.#subscriber !== undefined)
        throw new TproxyError('E_STATE', 'trace: another trace is under way', { hint: 'end it first' })
      // The clock of bpf_ktime_get_ns(), in milliseconds, to that of dates.
      const epochMs = Date.now() - Number(process.hrtime.bigint()) / 1e6
      let number = 0
      const tracing = this.#steering.trace(
        { address: addressBytes(target.address), port: target.port },
        (event) => {
          number += 1 + event.lost
          subscriber.next(this.#step(event, number, epochMs))
        },
      )
      this.#subscriber = subscriber
      return () => {
        tracing.close()
        this.#subscriber = undefined
      }
    })
  }

  [Symbol.dispose](): void {
    this.#subscriber?.complete()
  }

  #step(event: TraceEvent, number: number, epochMs: number): TraceStep {
    const { before, after, ifindex } = event
    const isSplice = event.hook >= Hook.spliceEgress
    return {
      number,
      timeMs: epochMs + Number(event.time) / 1e6,
      hook: snake(hooks.get(event.hook) ?? '') as TraceHook,
      interface: this.#interfaceName(ifindex) ?? `${ifindex}`,
      protocol: event.protocol,
      flags: flagsOf(event.flagsBefore),
      ...endsOf(before),
      ...(!isSame(before, after) && { became: { ...endsOf(after), flags: flagsOf(event.flags) } }),
      length: event.length,
      decision: decisions[event.returned] ?? 'next',
      reasons: namesOf(event.reasons, isSplice ? spliceReasons : reasons),
      ...(event.generation !== 0 && { rule: event.rule }),
    }
  }
}

function namesOf(bits: bigint, names: ReadonlyMap<number, string>): string[] {
  return [...names].filter(([value]) => (bits >> BigInt(value)) & 1n).map(([, name]) => name)
}

const endsOf = ({ source, destination, sourcePort, destinationPort }: FlowKey) => ({
  source: endpointOf(source, sourcePort),
  destination: endpointOf(destination, destinationPort),
})

const isSame = (a: FlowKey, b: FlowKey) =>
  a.sourcePort === b.sourcePort &&
  a.destinationPort === b.destinationPort &&
  Buffer.compare(a.source, b.source) === 0 &&
  Buffer.compare(a.destination, b.destination) === 0
