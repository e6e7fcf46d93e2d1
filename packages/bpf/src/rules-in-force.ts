import { closeSync } from 'node:fs'
import { bpf, watchRingBuffer } from './ffi.ts'
import {
  Capacity,
  type Control,
  controlSize,
  Limit,
  type LogEntry,
  type Memory,
  type MemoryKey,
  memoryKeySize,
  memorySize,
  readLogEntry,
  readMemory,
  readMemoryKey,
  readRuleCount,
  ruleCountSize,
  writeControl,
  writeMemory,
  writeMemoryKey,
} from './layout.gen.ts'
import { type LoadedObject, u32 } from './object.ts'

/** BPF_MAP_TYPE_ARRAY */
const arrayMap = 2

const mapOfCapacity: Readonly<Record<number, string>> = {
  [Capacity.small + Capacity.slack]: 'rules_small',
  [Capacity.medium + Capacity.slack]: 'rules_medium',
  [Capacity.large + Capacity.slack]: 'rules_large',
  [Capacity.huge + Capacity.slack]: 'rules_huge',
}

/** A compiled list of rules. */
export interface RuleList {
  /** Holds a `struct ruleset` and is as long as one of `Capacity`, and its slack. */
  readonly bytes: Buffer
  /** One more than that of the list before. */
  readonly generation: number
  /** How many there are, besides the default. */
  readonly rules: number
  /** Whether it drops or rejects anything. */
  readonly refuses: boolean
  /** Whether connections that earlier lists decided are asked about again, at their next packet. */
  readonly again: boolean
}

/** The rules that the steering programs follow, what these counted for them, and the verdicts that hold under them. */
export class RulesInForce {
  readonly #object: LoadedObject
  readonly #control: Control = { closing: 0, generation: 0, since: 0, refuses: 0, remembers: 0 }
  /** That has the list in force. */
  #map: string | undefined

  constructor(object: LoadedObject) {
    this.#object = object
  }

  /**
   * Puts a compiled list in force: a packet is judged by the old list or by the new one, never by parts of both. Returns
   * when no packet is judged by the old one any more, some 10 ms later. Throws, and has changed nothing, where there is no
   * memory for it.
   */
  put(list: RuleList): void {
    const { bytes, generation } = list
    const map = mapOfCapacity[bytes.length]
    if (map === undefined) throw new RangeError(`a list of ${bytes.length} bytes`)
    const fd = bpf.createMap('create a map for the rules', arrayMap, 'rules', 4, bytes.length, 1, null)
    const before = { ...this.#control }
    try {
      bpf.updateElement('write the rules', fd, u32(0), bytes, 0)
      this.#clearCounts(list)
      this.#control.refuses ||= list.refuses ? 1 : 0
      if (list.again) this.#control.since = generation
      this.#writeControl()
      // Where both maps have a list, the smaller one's counts: so one step of these two is the change.
      this.#object.update(map, u32(0), u32(fd))
    } catch (error) {
      Object.assign(this.#control, before)
      this.#writeControl()
      throw error
    } finally {
      // The map of maps has its own reference.
      closeSync(fd)
    }
    if (this.#map !== undefined && this.#map !== map) this.#object.delete(this.#map, u32(0))
    this.#map = map
    // What the list before counts, it has counted.
    this.#control.generation = generation
    this.#control.refuses = list.refuses ? 1 : 0
    // Of older rules, and of no use any more.
    this.#control.remembers = 0
    this.#writeControl()
  }

  #clearCounts({ generation, rules }: RuleList): void {
    const batches = batchesOf(generation, rules)
    // The first is as long as any.
    const most = batches[0]?.entries ?? 0
    const zeros = Buffer.alloc(most * bpf.possibleCpus('count processors') * entrySize)
    for (const { first, entries } of batches) this.#object.putRange('rule_counts', first, entries, zeros)
  }

  /** Calls back with each entry of rules with `log`. Close it to stop. */
  watchLog(entry: (entry: LogEntry) => void): { close(): void } {
    return watchRingBuffer('watch the log', this.#object.map('rule_log'), (bytes) =>
      // Its addresses are views of the bytes.
      entry(readLogEntry(Buffer.from(bytes))),
    )
  }

  /**
   * Packets and bytes by the number of the rule that decided them, the default's first; of a list in force, or of the one
   * before, whose counts are final.
   */
  counts({
    generation,
    rules,
  }: Pick<RuleList, 'generation' | 'rules'>): { packets: bigint; bytes: bigint }[] {
    const cpus = bpf.possibleCpus('count processors')
    const counts = batchesOf(generation, rules).flatMap(({ first, entries }) => {
      const values = this.#object.range('rule_counts', first, entries, cpus * entrySize)
      return Array.from({ length: entries * Limit.counted }, (_, at) => {
        const [entry, within] = [Math.floor(at / Limit.counted), at % Limit.counted]
        return sumOf(values, entry * cpus * entrySize + within * ruleCountSize, cpus)
      })
    })
    return counts.slice(0, rules + 1)
  }

  /**
   * Has a verdict hold for later connections of the same user that the same rule sends to a plugin, until the time of
   * `process.hrtime` in ns. Returns false, and does nothing, when the rules of its generation are no longer in force.
   */
  remember(key: MemoryKey, memory: Memory): boolean {
    if (memory.generation !== this.#control.generation) return false
    const bytes = writeMemoryKey(Buffer.alloc(memoryKeySize), key)
    this.#object.update('memories', bytes, writeMemory(Buffer.alloc(memorySize), memory))
    if ((this.#control.remembers & key.by) === 0) {
      this.#control.remembers |= key.by
      this.#writeControl()
    }
    return true
  }

  /** What {@link remember} had hold, as long as it does. */
  remembered(): { key: MemoryKey; memory: Memory }[] {
    const now = process.hrtime.bigint()
    const value = Buffer.alloc(memorySize)
    return this.#object
      .keys('memories', memoryKeySize)
      .filter((key) => this.#object.lookup('memories', key, value))
      .map((key) => ({ key: readMemoryKey(Buffer.from(key)), memory: readMemory(value) }))
      .filter(({ memory }) => memory.generation === this.#control.generation && memory.until >= now)
      .toArray()
  }

  /** Undoes a {@link remember}. */
  forget(key: MemoryKey): void {
    this.#object.delete('memories', writeMemoryKey(Buffer.alloc(memoryKeySize), key))
  }

  /** Undoes every {@link remember}. */
  forgetAll(): void {
    this.#control.remembers = 0
    this.#writeControl()
    const keys = Array.from(this.#object.keys('memories', memoryKeySize), (each) => Buffer.from(each))
    for (const each of keys) this.#object.delete('memories', each)
  }

  /** Lets new connections pass from now on; established ones are still steered. */
  stopTaking(): void {
    this.#control.closing = 1
    this.#writeControl()
  }

  #writeControl(): void {
    this.#object.update('control', u32(0), writeControl(Buffer.alloc(controlSize), this.#control))
  }
}

/** Of the counts of rules that lie together, for one processor. */
const entrySize = Limit.counted * ruleCountSize

/** Entries that are read and cleared at a time: on hosts with hundreds of processors each has some 100 kilobytes. */
const batch = 16

/** Where the packets of a list's rules, and of its default, are counted; see rule_counts.h. */
function batchesOf(generation: number, rules: number): { first: number; entries: number }[] {
  const half = (generation & 1) * (Limit.rules / Limit.counted + 1)
  const all = Math.ceil((rules + 1) / Limit.counted)
  return Array.from({ length: Math.ceil(all / batch) }, (_, at) => ({
    first: half + at * batch,
    entries: Math.min(batch, all - at * batch),
  }))
}

/** Of one rule, over all processors. */
function sumOf(values: Buffer, begin: number, cpus: number): { packets: bigint; bytes: bigint } {
  let [packets, bytes] = [0n, 0n]
  for (let cpu = 0; cpu < cpus; cpu++) {
    const count = readRuleCount(values, begin + cpu * entrySize)
    packets += count.packets
    bytes += count.bytes
  }
  return { packets, bytes }
}
