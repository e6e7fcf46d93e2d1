import { Action, type Flow, type Steering } from '@tproxy/bpf'
import { addressBytes, type Endpoint } from '../endpoint.ts'
import { checkRemember, type Remember } from '../remember.ts'
import type { Memories } from '../transport.ts'

/** Verdicts that hold for later connections, in the kernel: at most 16 384, the least recently used of which goes first. */
export class KernelMemories implements Memories {
  readonly #steering: Steering

  constructor(steering: Steering) {
    this.#steering = steering
  }

  get recalled(): number {
    return Number(this.#steering.counters().remembered)
  }

  /** For connections that a user opens to a destination and the rule of this flow would have proxied. */
  readonly remember = (
    { owner: { uid }, rule, generation }: Flow,
    { address, port }: Endpoint,
    action: 'direct' | 'refuse',
    how: Remember,
  ): void => {
    checkRemember(how)
    const key = {
      destination: addressBytes(address),
      uid,
      port: how.by === 'address' ? 0 : port,
      unused: 0,
    }
    this.#steering.remember(key, {
      // The clock of bpf_ktime_get_ns().
      until: process.hrtime.bigint() + BigInt(Math.round(how.ttl * 1e6)),
      rule,
      generation,
      action: action === 'direct' ? Action.direct : Action.reject,
      unused: 0,
    })
  }

  forget(): void {
    this.#steering.forget()
  }
}
