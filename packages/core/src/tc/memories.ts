import { Action, type Flow, type Memory, MemoryBy, type MemoryKey, type Steering } from '@tproxy/bpf'
import { addressBytes, type Endpoint, endpointOf } from '../endpoint.ts'
import type { Remember, Remembered } from '../remember.ts'
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
    verdict: Remembered['verdict'],
    how: Remember,
  ): Remembered | undefined => {
    const key = keyOf({ address, port: how.by === 'address' ? undefined : port, uid, rule })
    const memory = {
      // The clock of bpf_ktime_get_ns().
      until: process.hrtime.bigint() + BigInt(Math.round(how.ttl * 1e6)),
      hits: 0n,
      generation,
      action: verdict === 'direct' ? Action.direct : Action.reject,
    }
    return this.#steering.rules.remember(key, memory) ? remembered(key, memory) : undefined
  }

  list(): readonly Remembered[] {
    return this.#steering.rules.remembered().map(({ key, memory }) => remembered(key, memory))
  }

  forget(memory: Remembered): void {
    this.#steering.rules.forget(keyOf(memory))
  }

  clear(): void {
    this.#steering.rules.forgetAll()
  }
}

function keyOf({
  address,
  port,
  uid,
  rule,
}: Pick<Remembered, 'address' | 'port' | 'uid' | 'rule'>): MemoryKey {
  return {
    destination: addressBytes(address),
    uid,
    rule,
    port: port ?? 0,
    by: port === undefined ? MemoryBy.byAddress : MemoryBy.byDestination,
  }
}

function remembered({ destination, uid, rule, port, by }: MemoryKey, memory: Memory): Remembered {
  const leftMs = Number(memory.until - process.hrtime.bigint()) / 1e6
  return {
    verdict: memory.action === Action.direct ? 'direct' : 'drop',
    address: endpointOf(destination, port).address,
    port: by === MemoryBy.byAddress ? undefined : port,
    uid,
    rule,
    until: new Date(Date.now() + leftMs),
    hits: Number(memory.hits),
  }
}
