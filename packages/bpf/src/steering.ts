import { closeSync, openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import {
  bpf,
  linkTcx,
  type NativeError,
  type Pointer,
  runProgram,
  watchRingBuffer,
  withLibbpfLog,
} from './ffi.ts'
import {
  Capacity,
  type Control,
  Counter,
  controlSize,
  type Device,
  deviceSize,
  type Flow,
  type FlowKey,
  flowKeySize,
  flowSize,
  type LogEntry,
  Mark,
  readFlow,
  readLogEntry,
  readRuleCount,
  ruleCountSize,
  type Settings,
  settingsSize,
  writeControl,
  writeDevice,
  writeFlowKey,
  writeSettings,
} from './layout.gen.ts'

/** `enum bpf_attach_type` of include/uapi/linux/bpf.h. */
const Attach = { traceRawTp: 23, skLookup: 36, tcxIngress: 46, tcxEgress: 47 } as const

/** BPF_MAP_TYPE_ARRAY */
const arrayMap = 2

const mapOfCapacity: Readonly<Record<number, string>> = {
  [Capacity.small + Capacity.slack]: 'rules_small',
  [Capacity.medium + Capacity.slack]: 'rules_medium',
  [Capacity.large + Capacity.slack]: 'rules_large',
  [Capacity.huge + Capacity.slack]: 'rules_huge',
}

const objectPath = fileURLToPath(new URL('../dist/steer.bpf.o', import.meta.url))

/** Packets by outcome, since load; see `enum counter` in contract.h. */
export type Counters = Record<Exclude<keyof typeof Counter, 'max'>, bigint>

/** A compiled list of rules. */
export interface RuleList {
  /** Holds a `struct ruleset` and is as long as one of `Capacity`, and its slack. */
  readonly bytes: Buffer
  /** Larger than that of any list before. */
  readonly generation: number
  /** How many there are, besides the default. */
  readonly rules: number
  /** Whether it drops or rejects anything. */
  readonly refuses: boolean
  /** Whether connections that earlier lists decided are asked about again, at their next packet. */
  readonly again: boolean
}

/** Of `struct __sk_buff`, include/uapi/linux/bpf.h. */
const skb = { size: 192, mark: 8, ifindex: 40 } as const

/**
 * The steering programs, loaded. What is attached stays until {@link close} or the end of the process, for every link is
 * held by a file descriptor. Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, kernel BTF, and Linux 6.6 (tcx).
 */
export class Steering {
  readonly mark: number
  readonly #object: Pointer
  readonly #maps = new Map<string, number>()
  readonly #links = new Map<string, number>()
  readonly #key = Buffer.alloc(4)
  readonly #flowKey = Buffer.alloc(flowKeySize)
  readonly #flow = Buffer.alloc(flowSize)
  readonly #control: Control = { closing: 0, generation: 0, since: 0, refuses: 0 }
  /** The map that has the list in force. */
  #rules: string | undefined
  #ruleCount = 0
  #closed = false

  private constructor(object: Pointer, mark: number) {
    this.#object = object
    this.mark = mark
  }

  /** Opens, configures and loads. The error's message holds the telling line of the verifier's log. */
  static load(settings: Settings): Steering {
    const outcome = withLibbpfLog(() => {
      const object = bpf.open(`open ${objectPath}`, objectPath, null)
      try {
        const rodata = bpf.findMap('find the settings', object, '.rodata.settings')
        bpf.setInitialValue(
          'configure',
          rodata,
          writeSettings(Buffer.alloc(settingsSize), settings),
          settingsSize,
        )
        bpf.load('load the steering programs', object)
        return new Steering(object, settings.mark)
      } catch (error) {
        bpf.close(object)
        throw error
      }
    })
    if ('result' in outcome) return outcome.result
    throw new LoadError(outcome.error as NativeError, outcome.log)
  }

  /** Restricts interception to a cgroup v2 directory and what is below it; settings.scoped must be 1. */
  setScope(cgroup: string): void {
    const fd = openSync(cgroup, 'r')
    try {
      this.#update('scope', u32(0), u32(fd))
    } finally {
      closeSync(fd)
    }
  }

  /** Makes an interface known under a slot; to be called before {@link attachDevice}. */
  setDevice(slot: number, device: Device): void {
    this.#update('devices', u32(slot), writeDevice(Buffer.alloc(deviceSize), device))
    if (device.ifindex !== 0) this.#update('slots', u32(device.ifindex), u32(slot))
  }

  /** Takes a listening socket for a slot. The map holds its own reference and loses it when the socket closes. */
  setListener(slot: number, family: 4 | 6, fd: number): void {
    const value = Buffer.alloc(8)
    value.writeBigUInt64LE(BigInt(fd))
    this.#update('listeners', u32(slot * 2 + (family === 6 ? 1 : 0)), value)
  }

  /**
   * Puts a compiled list in force: a packet is judged by the old list or by the new one, never by parts of both. Returns
   * when no packet is judged by the old one any more, some 10 ms later. Counts per rule begin anew.
   */
  setRules(list: RuleList): void {
    const { bytes, generation } = list
    this.#clearRuleCounts(this.#ruleCount)
    this.#ruleCount = list.rules
    this.#control.generation = generation
    this.#control.refuses ||= list.refuses ? 1 : 0
    if (list.again) this.#control.since = generation
    this.#writeControl()
    this.#putRules(bytes)
    this.#control.refuses = list.refuses ? 1 : 0
    this.#writeControl()
  }

  #putRules(bytes: Buffer): void {
    const map = mapOfCapacity[bytes.length]
    if (map === undefined) throw new RangeError(`a list of ${bytes.length} bytes`)
    const list = bpf.createMap('create a map for the rules', arrayMap, 'rules', 4, bytes.length, 1, null)
    try {
      bpf.updateElement('write the rules', list, u32(0), bytes, 0)
      // Where both maps have a list, the smaller one's counts: so one step of these two is the change.
      this.#update(map, u32(0), u32(list))
    } finally {
      // The map of maps has its own reference.
      closeSync(list)
    }
    if (this.#rules !== undefined && this.#rules !== map) bpf.deleteElement(this.#map(this.#rules), u32(0))
    this.#rules = map
  }

  #clearRuleCounts(rules: number): void {
    const zero = Buffer.alloc(ruleCountSize * bpf.possibleCpus('count processors'))
    for (let rule = 0; rule <= rules; rule++) this.#update('rule_counts', u32(rule), zero)
  }

  /** Calls back with each entry of rules with `log`. Close it to stop. */
  watchLog(entry: (entry: LogEntry) => void): { close(): void } {
    return watchRingBuffer('watch the log', this.#map('rule_log'), (bytes) => entry(readLogEntry(bytes)))
  }

  /**
   * What `wan_egress` would do with a packet, from its link layer header on, that left by the interface now. Nothing is
   * sent; counters count. A value of `TC_ACT_…`.
   */
  tryPacket(packet: Buffer, from: { ifindex: number; mark: number }): number {
    const context = Buffer.alloc(skb.size)
    context.writeUInt32LE(from.mark, skb.mark)
    context.writeUInt32LE(from.ifindex, skb.ifindex)
    return runProgram('try a packet', this.#programFd('wan_egress'), packet, { context }).returned | 0
  }

  /** Packets and bytes by the number of the rule that decided them, the default's first. */
  ruleCounts(): { packets: bigint; bytes: bigint }[] {
    const cpus = bpf.possibleCpus('count processors')
    const values = Buffer.alloc(ruleCountSize * cpus)
    return Array.from({ length: this.#ruleCount + 1 }, (_, rule) => {
      bpf.lookupElement(this.#map('rule_counts'), u32(rule), values)
      let [packets, bytes] = [0n, 0n]
      for (let cpu = 0; cpu < cpus; cpu++) {
        const count = readRuleCount(values, cpu * ruleCountSize)
        packets += count.packets
        bytes += count.bytes
      }
      return { packets, bytes }
    })
  }

  /** Lets new connections pass from now on; established ones are still steered. */
  stopTaking(): void {
    this.#control.closing = 1
    this.#writeControl()
  }

  /** Connections that process `pid` opens from now on are not intercepted. `exemption` is a sum of `Exemption`. */
  exempt(pid: number, exemption: number): void {
    this.#update('exempt', u32(pid), u32(exemption))
  }

  /** Attaches what does not depend on an interface: owner tracing, the listener lookup and the hooks of lo. */
  attachReturnPath(loIfindex: number): void {
    this.#link('connect_owner', 'trace connects', 0, Attach.traceRawTp)
    const netns = openSync('/proc/self/ns/net', 'r')
    try {
      this.#link('listener_lookup', 'attach to the network namespace', netns, Attach.skLookup)
    } finally {
      closeSync(netns)
    }
    this.#links.set('lo_ingress', this.#tcx('lo_ingress', 'lo', loIfindex, Attach.tcxIngress, false))
    this.#links.set('lo_egress', this.#tcx('lo_egress', 'lo', loIfindex, Attach.tcxEgress, false))
  }

  /** Starts intercepting on an interface. `first`: before other programs on that hook, not behind them. */
  attachDevice(name: string, ifindex: number, first: boolean): void {
    const link = this.#tcx('wan_egress', name, ifindex, Attach.tcxEgress, first)
    this.#links.set(`wan_egress ${ifindex}`, link)
  }

  /** Stops intercepting on an interface, and forgets it. */
  detachDevice(ifindex: number): void {
    const link = `wan_egress ${ifindex}`
    const fd = this.#links.get(link)
    if (fd !== undefined) closeSync(fd)
    this.#links.delete(link)
    bpf.deleteElement(this.#map('slots'), u32(ifindex))
  }

  /** The file descriptors of all links: a process that inherits them keeps the programs attached. */
  get links(): readonly number[] {
    return [...this.#links.values()]
  }

  /** What is known of a connection, removed from the map; undefined when nothing is. About 1 µs. */
  takeFlow(key: FlowKey): Flow | undefined {
    writeFlowKey(this.#flowKey, key)
    if (bpf.takeElement(this.#map('flows'), this.#flowKey, this.#flow) !== 0) return undefined
    return readFlow(this.#flow)
  }

  counters(): Counters {
    const cpus = bpf.possibleCpus('count processors')
    const values = Buffer.alloc(8 * cpus)
    const sum = (index: number) => {
      this.#key.writeUInt32LE(index)
      bpf.lookupElement(this.#map('counters'), this.#key, values)
      let total = 0n
      for (let cpu = 0; cpu < cpus; cpu++) total += values.readBigUInt64LE(cpu * 8)
      return total
    }
    const entries = Object.entries(Counter).filter(([name]) => name !== 'max')
    return Object.fromEntries(entries.map(([name, index]) => [name, sum(index)])) as Counters
  }

  /** Detaches everything and unloads. Idempotent. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const fd of this.#links.values()) closeSync(fd)
    this.#links.clear()
    bpf.close(this.#object)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #map(name: string): number {
    let fd = this.#maps.get(name)
    if (fd === undefined) {
      fd = bpf.mapFd(`map ${name}`, bpf.findMap(`find map ${name}`, this.#object, name))
      this.#maps.set(name, fd)
    }
    return fd
  }

  #update(name: string, key: Buffer, value: Buffer): void {
    bpf.updateElement(`update map ${name}`, this.#map(name), key, value, 0)
  }

  #writeControl(): void {
    this.#update('control', u32(0), writeControl(Buffer.alloc(controlSize), this.#control))
  }

  #programFd(name: string): number {
    return bpf.programFd(`program ${name}`, bpf.findProgram(`find program ${name}`, this.#object, name))
  }

  #link(program: string, operation: string, target: number, type: number): void {
    this.#links.set(program, bpf.createLink(operation, this.#programFd(program), target, type, null))
  }

  #tcx(program: string, device: string, ifindex: number, attachType: number, first: boolean): number {
    const link = { program: this.#programFd(program), ifindex, attachType, first }
    return linkTcx(`attach ${program} to ${device}`, link)
  }
}

/** The steering programs did not load. */
export class LoadError extends Error {
  override readonly name = 'LoadError'
  readonly errno: number
  /** All that libbpf and the verifier said; not enumerable, for it is long. */
  declare readonly log: string

  constructor(cause: NativeError, log: string) {
    const lines = log.split('\n').filter((line) => line.trim() !== '')
    // The verifier's complaint stands above its closing statistics; libbpf's own lines begin with its name.
    const end = lines.findIndex((line) => line.startsWith('processed '))
    const telling = end > 0 ? lines[end - 1] : lines.find((line) => line.startsWith('libbpf: '))
    super(`${cause.message}${telling === undefined ? '' : `: ${telling.replace(/^libbpf: /, '')}`}`, {
      cause,
    })
    this.errno = cause.errno
    Object.defineProperty(this, 'log', { value: log, enumerable: false })
  }
}

function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32LE(value)
  return buffer
}

/** The mark that listeners carry, so that their packets are known as replies. */
export function replyMark(mark: number, slot: number): number {
  return (mark | Mark.reply | slot) >>> 0
}

/** The version of the libbpf that is used, such as `1.1`. Throws a `NativeError` when there is none. */
export function libbpfVersion(): string {
  return bpf.version().replace(/^v/, '')
}
