import { closeSync, openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { bpf, linkTcx, runProgram, type TcxPlace, watchRingBuffer } from './ffi.ts'
import {
  Counter,
  type Device,
  deviceSize,
  type Flow,
  type FlowKey,
  flowKeySize,
  flowSize,
  Mark,
  readFlow,
  readTraceEvent,
  type Settings,
  settingsSize,
  type TraceEvent,
  type TraceTarget,
  traceTargetSize,
  writeDevice,
  writeFlowKey,
  writeSettings,
  writeTraceTarget,
} from './layout.gen.ts'
import { Links, programId, programName, programsAt, type Restored } from './links.ts'
import { LoadedObject, Tcx, u32 } from './object.ts'
import { Openings } from './openings.ts'
import { RulesInForce } from './rules-in-force.ts'

/** `enum bpf_attach_type` of include/uapi/linux/bpf.h. */
const Attach = { traceRawTp: 23, iterator: 28, skLookup: 36 } as const

/** The kernel cuts names to 15 characters. */
const ours = /^(wan_egress|splice_egress(_b)?)$/

/** Those that go by the addresses of a packet, also of an instance that has left its connections to the kernel. */
const carrying = /^splice_egress(_b)?$/

/** Until it is looked again for others at a hook, who may have come any time. */
const observedMs = 10

const objectPath = fileURLToPath(new URL('../dist/steer.bpf.o', import.meta.url))

/** Packets by outcome, since load; see `enum counter` in contract.h. */
export type Counters = Record<Exclude<keyof typeof Counter, 'max'>, bigint>

/** Of `struct __sk_buff`, include/uapi/linux/bpf.h. */
const skb = { size: 192, mark: 8, ifindex: 40 } as const

/**
 * The steering programs, loaded. What is attached stays until {@link close} or the end of the process, for every link is
 * held by a file descriptor. Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, kernel BTF, and Linux 6.6 (tcx).
 */
export class Steering {
  readonly mark: number
  /** What the programs ask of each packet. */
  readonly rules: RulesInForce
  /** What waits for a decision. */
  readonly openings: Openings
  readonly #object: LoadedObject
  readonly #links = new Links()
  /** Connections that were waiting to be accepted, by their addresses. */
  #unclaimed = new Map<string, Buffer>()
  readonly #flowKey = Buffer.alloc(flowKeySize)
  readonly #flow = Buffer.alloc(flowSize)
  /** Programs at the egress of an interface when they were last looked at. */
  #observers: { ifindex: number; ids: readonly number[]; isUnobserved: boolean; until: number } = {
    ifindex: 0,
    ids: [],
    isUnobserved: false,
    until: 0,
  }
  #closed = false

  private constructor(object: LoadedObject, mark: number) {
    this.#object = object
    this.mark = mark
    this.rules = new RulesInForce(object)
    this.openings = new Openings(object)
  }

  /** Opens, configures and loads. The error's message holds the telling line of the verifier's log. */
  static load(settings: Settings): Steering {
    const bytes = writeSettings(Buffer.alloc(settingsSize), settings)
    return new Steering(
      LoadedObject.load('the steering programs', objectPath, { settings: bytes }),
      settings.mark,
    )
  }

  /** Restricts interception to a cgroup v2 directory and what is below it; settings.scoped must be 1. */
  setScope(cgroup: string): void {
    const fd = openSync(cgroup, 'r')
    try {
      this.#object.update('scope', u32(0), u32(fd))
    } finally {
      closeSync(fd)
    }
  }

  /** Makes an interface known under a slot; to be called before {@link attachDevice}. */
  setDevice(slot: number, device: Device): void {
    this.#object.update('devices', u32(slot), writeDevice(Buffer.alloc(deviceSize), device))
    if (device.ifindex !== 0) this.#object.update('slots', u32(device.ifindex), u32(slot))
  }

  /** Takes a listening socket for a slot. The map holds its own reference and loses it when the socket closes. */
  setListener(slot: number, family: 4 | 6, fd: number): void {
    const value = Buffer.alloc(8)
    value.writeBigUInt64LE(BigInt(fd))
    this.#object.update('listeners', u32(slot * 2 + (family === 6 ? 1 : 0)), value)
  }

  /**
   * What `wan_egress` would do with a packet, from its link layer header on, that left by the interface now. Nothing is
   * sent; counters count. A value of `TC_ACT_…`.
   */
  tryPacket(packet: Buffer, from: { ifindex: number; mark: number }): number {
    const context = Buffer.alloc(skb.size)
    context.writeUInt32LE(from.mark, skb.mark)
    context.writeUInt32LE(from.ifindex, skb.ifindex)
    return runProgram('try a packet', this.#object.program('wan_egress'), packet, { context }).returned | 0
  }

  /** Connections that process `pid` opens from now on are not intercepted. `exemption` is a sum of `Exemption`. */
  exempt(pid: number, exemption: number): void {
    this.#object.update('exempt', u32(pid), u32(exemption))
  }

  /** Takes that back. */
  intercept(pid: number): void {
    this.#object.delete('exempt', u32(pid))
  }

  /** Attaches what does not depend on an interface: owner tracing, the listener lookup and the hooks of lo. */
  attachReturnPath(loIfindex: number): void {
    for (const program of ['connect_outcome', 'connect_owner'])
      this.#links.add(program, () => this.#link(program, 'trace connects', 0, Attach.traceRawTp))
    this.#links.add('listener_lookup', () => {
      const netns = openSync('/proc/self/ns/net', 'r')
      try {
        return this.#link('listener_lookup', 'attach to the network namespace', netns, Attach.skLookup)
      } finally {
        closeSync(netns)
      }
    })
    for (const direction of ['ingress', 'egress'] as const)
      this.#links.add(`lo_${direction}`, () => this.#tcx(`lo_${direction}`, 'lo', loIfindex, Tcx[direction]))
  }

  /**
   * Starts intercepting on an interface. `first`: before other programs on that hook, not behind them; but right behind
   * `splice` if that is there already, for it would not see what is redirected before it.
   */
  attachDevice(name: string, ifindex: number, first: boolean, splice: number | undefined): void {
    this.#links.add(`wan_egress ${ifindex}`, () => {
      const isThere = splice !== undefined && programsAt(ifindex, Tcx.egress).includes(programId(splice))
      return this.#tcx('wan_egress', name, ifindex, Tcx.egress, isThere ? { after: splice } : { first })
    })
  }

  /** Stops intercepting on an interface, and forgets it. */
  detachDevice(ifindex: number): void {
    this.#links.remove(`wan_egress ${ifindex}`)
    this.#object.delete('slots', u32(ifindex))
  }

  /** Attaches again what somebody has detached. */
  restore(): Restored[] {
    return this.#links.restore()
  }

  /** Whether `wan_egress` sees what leaves by an interface. */
  intercepts(ifindex: number): boolean {
    return programsAt(ifindex, Tcx.egress).includes(programId(this.egress))
  }

  /** Names of the programs that see what leaves by an interface before `wan_egress` does, but those of tproxy. */
  before(ifindex: number): string[] {
    const all = programsAt(ifindex, Tcx.egress)
    const here = all.indexOf(programId(this.egress))
    const names = all.slice(0, Math.max(0, here)).map((id) => programName(id) || `program ${id}`)
    return names.filter((name) => !ours.test(name))
  }

  /**
   * Whether nobody else looks at what leaves by an interface. Somebody who does may go by the socket of a packet, and a SYN that
   * was held has none when it leaves. To look takes 3 to 20 µs, for which a program waits: what was found holds for a while.
   */
  isUnobserved(ifindex: number): boolean {
    const now = performance.now()
    const known = this.#observers
    if (known.ifindex === ifindex && now < known.until) return known.isUnobserved
    const ids = programsAt(ifindex, Tcx.egress)
    let { isUnobserved } = known
    if (known.ifindex !== ifindex || ids.join() !== known.ids.join()) {
      const own = programId(this.egress)
      isUnobserved = ids.every((id) => id === own || carrying.test(programName(id) ?? ''))
    }
    this.#observers = { ifindex, ids, isUnobserved, until: now + observedMs }
    return isUnobserved
  }

  /** The file descriptors of all links: a process that inherits them keeps the programs attached. */
  get links(): readonly number[] {
    return this.#links.descriptors
  }

  /**
   * An iterator: whoever reads it to its end resets all connections of this network namespace that are proxied, those that the
   * process waits for included (bpf_sock_destroy, since 6.5). A descriptor that the caller closes; it outlives {@link close}.
   */
  proxiedEnder(): number {
    const link = this.#link('end_proxied', 'iterate over sockets', 0, Attach.iterator)
    try {
      return bpf.createIterator('iterate over sockets', link)
    } finally {
      closeSync(link)
    }
  }

  /**
   * Calls back with what each hook does with each packet of one destination, both ways; every packet costs more meanwhile.
   * Close it to stop. One at a time: a second takes the place of the first.
   */
  trace(target: Omit<TraceTarget, 'on'>, event: (event: TraceEvent) => void): { close(): void } {
    const write = (on: number) =>
      this.#object.update(
        '.data.trace',
        u32(0),
        writeTraceTarget(Buffer.alloc(traceTargetSize), { ...target, on }),
      )
    // What an earlier trace has left unread is none of this one's. The clock of bpf_ktime_get_ns().
    const since = process.hrtime.bigint()
    const watch = watchRingBuffer('watch the trace', this.#object.map('trace_events'), (bytes) => {
      const read = readTraceEvent(Buffer.from(bytes))
      if (read.time >= since) event(read)
    })
    write(1)
    return {
      close() {
        write(0)
        watch.close()
      },
    }
  }

  /** What both kinds of programs write and read, for {@link Splicing.load}: maps by name. */
  get shared(): Readonly<Record<string, number>> {
    const names = ['control', 'rule_counts', 'sockets', '.data.trace', 'trace_events']
    return Object.fromEntries(names.map((name) => [name, this.#object.map(name)]))
  }

  /** What is known of programs' sockets, for {@link Fastpath.load}: the descriptor of a map. */
  get sockets(): number {
    return this.#object.map('sockets')
  }

  /** For {@link Splicing.attach}, whose program goes before it. */
  get egress(): number {
    return this.#object.program('wan_egress')
  }

  /** For {@link Splicing.attachLoopback}, which goes before it. */
  get loopbackEgress(): number {
    return this.#object.program('lo_egress')
  }

  /** What is known of a connection, removed from the map; undefined when nothing is. About 1 µs. */
  takeFlow(key: FlowKey): Flow | undefined {
    writeFlowKey(this.#flowKey, key)
    if (bpf.takeElement(this.#object.map('flows'), this.#flowKey, this.#flow) !== 0) return undefined
    return readFlow(this.#flow)
  }

  /** Forgets connections that were there at the last call and that nobody has taken since: their programs vanished. */
  forgetUnclaimed(): void {
    const before = this.#unclaimed
    const keys = this.#object.keys('flows', flowKeySize)
    this.#unclaimed = new Map(Array.from(keys, (key) => [key.toString('latin1'), Buffer.from(key)]))
    for (const [name, key] of this.#unclaimed) if (before.has(name)) this.#object.delete('flows', key)
  }

  counters(): Counters {
    return this.#object.counters('counters', Counter) as Counters
  }

  /** Detaches everything and unloads. Idempotent. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#links.close()
    this.openings.close()
    this.#object.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #link(program: string, operation: string, target: number, type: number): number {
    return bpf.createLink(operation, this.#object.program(program), target, type, null)
  }

  #tcx(program: string, device: string, ifindex: number, attachType: number, place?: TcxPlace): number {
    const link = { program: this.#object.program(program), ifindex, attachType }
    return linkTcx(`attach ${program} to ${device}`, link, place)
  }
}

/** The mark that listeners carry, so that their packets are known as replies. */
export function replyMark(mark: number, slot: number): number {
  return (mark | Mark.reply | slot) >>> 0
}

/** The version of the libbpf that is used, such as `1.1`. Throws a `NativeError` when there is none. */
export function libbpfVersion(): string {
  return bpf.version().replace(/^v/, '')
}
