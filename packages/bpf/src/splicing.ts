import { closeSync, renameSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import {
  bpf,
  linkTcx,
  type PreparedRun,
  prepareRun,
  runProgram,
  type TcxPlace,
  watchRingBuffer,
} from './ffi.ts'
import {
  type Arming,
  armingSize,
  type Carriage,
  type Device,
  deviceSize,
  type FlowKey,
  flowKeySize,
  legSize,
  type PairEvent,
  PairState,
  readCarriage,
  readFlowKey,
  readLeg,
  readPairEvent,
  type Settings,
  SpliceCounter,
  settingsSize,
  Unfit,
  writeAdmission,
  writeArming,
  writeDevice,
  writeSettings,
} from './layout.gen.ts'
import { Links, type Restored } from './links.ts'
import { LoadedObject, Tcx, u32 } from './object.ts'
import { emptyFlow, sentBy } from './tcp.ts'

const objectPath = fileURLToPath(new URL('../dist/splice.bpf.o', import.meta.url))

/** An Ethernet header, which the kernel wants of a packet that a program is run on. */
const frame = 14

/** All that the programs know of pairs. */
const pairMaps = ['pairs', 'legs', 'members', 'hooked'] as const

/** Of the frame that a program is run on, which may become a segment. */
const etherType = { 4: 0x0800, 6: 0x86dd } as const

/** Of `struct __sk_buff`, include/uapi/linux/bpf.h. */
const skb = { size: 192, cb: 48 } as const

/**
 * The splice programs, loaded. What is attached stays until {@link close} or the end of the process. Needs what
 * `Steering` needs.
 */
export class Splicing implements Disposable {
  readonly #object: LoadedObject
  readonly #links = new Links()
  readonly #arm: PreparedRun
  readonly #settle: PreparedRun
  readonly #forget: PreparedRun
  readonly #admit: PreparedRun
  /** Filled in again for each. */
  readonly #upstream = emptyFlow()
  readonly #leg = Buffer.alloc(legSize)

  readonly #settings: Buffer
  readonly #directory: string | undefined
  /** The programs for interfaces without an Ethernet header, once there is one. */
  #bare: LoadedObject | undefined

  private constructor(object: LoadedObject, settings: Buffer, directory: string | undefined) {
    this.#object = object
    this.#settings = settings
    this.#directory = directory
    const prepare = (name: string) => prepareRun(name, object.program(name), frame + armingSize)
    this.#arm = prepare('arm')
    this.#settle = prepare('settle')
    this.#forget = prepare('forget')
    this.#admit = prepare('admit')
  }

  /**
   * Opens, configures and loads. The error's message holds the telling line of the verifier's log. With a directory of a bpf
   * file system, what is attached and known is pinned there: it outlives the process, and the next with this directory, and
   * the same `keptLayout`, takes it over. `shared`, of `Steering`, has these count for rules, and tell a trace, too.
   */
  static load(
    settings: Settings,
    directory?: string,
    shared: Readonly<Record<string, number>> = {},
  ): Splicing {
    const bytes = writeSettings(Buffer.alloc(settingsSize), settings)
    const object = LoadedObject.load('the splice programs', objectPath, {
      shared,
      settings: bytes,
      pinned: directory === undefined ? undefined : { directory, maps: pairMaps },
      loads: (program) => !isBare(program),
    })
    const splicing = new Splicing(object, bytes, directory)
    // Those of an earlier process look nothing up since it had no pair, and would not for one of ours.
    if (splicing.pairs().next().done === true) splicing.#detachLeft()
    return splicing
  }

  /** Looks at an interface from now on; before `steering`, the program that intercepts there. */
  attach(name: string, device: Device, steering: number): void {
    const { ifindex } = device
    this.describe(device)
    const link = (direction: 'ingress' | 'egress', place?: TcxPlace) =>
      this.#add(`${direction}-${ifindex}`, () =>
        linkTcx(
          `attach splice_${direction} to ${name}`,
          { program: this.#program(direction, device), ifindex, attachType: Tcx[direction] },
          place,
        ),
      )
    link('ingress')
    link('egress', { before: steering })
  }

  /** Of an interface that is looked at: its address may have changed. */
  describe(device: Device): void {
    this.#object.update('hooked', u32(device.ifindex), writeDevice(Buffer.alloc(deviceSize), device))
  }

  /** What {@link attach} attaches to the egress of an interface, for `Steering.attachDevice`, which goes behind it. */
  egress(device: Pick<Device, 'hasMac'>): number {
    return this.#program('egress', device)
  }

  /** Looks at lo from now on; before `steering`. */
  attachLoopback(ifindex: number, steering: number): void {
    const link = { program: this.#object.program('splice_loopback'), ifindex, attachType: Tcx.egress }
    this.#add('loopback', () => linkTcx('attach splice_loopback to lo', link, { before: steering }))
  }

  /** Forgets an interface that is gone. */
  detach(ifindex: number): void {
    for (const name of [`ingress-${ifindex}`, `egress-${ifindex}`]) {
      this.#links.remove(name)
      if (this.#directory !== undefined) rmSync(`${this.#directory}/${name}`, { force: true })
    }
    this.#object.delete('hooked', u32(ifindex))
  }

  /** Forgets all interfaces of the directory. */
  #detachLeft(): void {
    const left = Array.from(this.#object.keys('hooked', 4), (key) => key.readUInt32LE())
    for (const ifindex of left) this.detach(ifindex)
  }

  /** Attaches again what somebody has detached. */
  restore(): Restored[] {
    return this.#links.restore()
  }

  /** The file descriptors of all links: a process that inherits them keeps the programs attached. */
  get links(): readonly number[] {
    return this.#links.descriptors
  }

  /** Whether there is no pair: then the hooks look nothing up. To be false before {@link arm}, as it is at first. */
  set vacant(vacant: boolean) {
    this.#object.update('.data.vacant', u32(0), u32(vacant ? 1 : 0))
  }

  /**
   * Lets a program speak: its connection, by the addresses of its packets and the interface that they leave by, began with a
   * closed window. About 3 µs.
   */
  admit(client: FlowKey, ifindex: number, family: 4 | 6): void {
    const { packet } = this.#admit
    packet.writeUInt16BE(etherType[family], frame - 2)
    writeAdmission(packet, { ifindex, client }, frame)
    this.#admit.run()
  }

  /** Has the kernel carry two connections as one, if it can. About 5 µs. */
  arm(request: ArmRequest): Carriage {
    const { packet } = this.#arm
    if (sentBy(request.towardsUpstream, this.#upstream) !== request.family)
      return { ...unfit, unfit: Unfit.family }
    packet.writeUInt16BE(etherType[4], frame - 2)
    writeArming(packet, { ...request, upstream: this.#upstream }, frame)
    return answer(this.#arm)
  }

  /** How a pair is doing; silences our sockets when nothing is left for them to do. About 2 µs. */
  settle(pair: number, serial: number, family: 4 | 6): Carriage {
    return this.#run(this.#settle, pair, serial, family)
  }

  /** Resets both ends of a pair. */
  sever(pair: number, serial: number, family: 4 | 6): void {
    const packet = Buffer.alloc(frame + (family === 6 ? 40 : 20) + 20)
    packet.writeUInt16BE(etherType[family], frame - 2)
    const context = Buffer.alloc(skb.size)
    context.writeUInt32LE(pair, skb.cb)
    context.writeUInt32LE(serial, skb.cb + 4)
    runProgram('sever a connection', this.#object.program('sever'), packet, { context })
  }

  /** Forgets the addresses of a pair, unless they belong to a later one. About 1 µs. */
  forget(pair: number, serial: number, family: 4 | 6): void {
    this.#run(this.#forget, pair, serial, family)
  }

  /** The pairs that a process before us has left in the directory. */
  *pairs(): Generator<PairAddresses> {
    const found = new Map<number, { serial: number; ways: [FlowKey?, FlowKey?] }>()
    for (const key of this.#object.keys('legs', flowKeySize)) {
      if (!this.#object.lookup('legs', key, this.#leg)) continue
      const { pair, serial, way } = readLeg(this.#leg)
      const known = found.get(pair)
      const entry = known?.serial === serial ? known : { serial, ways: [] as [FlowKey?, FlowKey?] }
      // The key's bytes are used again.
      entry.ways[way] = readFlowKey(Buffer.from(key))
      found.set(pair, entry)
    }
    for (const [pair, { serial, ways }] of found) {
      const [client, fromUpstream] = ways
      if (client !== undefined && fromUpstream !== undefined) yield { pair, serial, client, fromUpstream }
    }
  }

  /** Calls back when a pair changes its state by a packet. */
  watch(changed: (event: PairEvent) => void): { close(): void } {
    return watchRingBuffer('watch the pairs', this.#object.map('pair_events'), (bytes) =>
      changed(readPairEvent(bytes)),
    )
  }

  /** Packets by what became of them; see `enum splice_counter` in contract.h. */
  counters(): Record<keyof typeof SpliceCounter, bigint> {
    return this.#object.counters('splice_counters', SpliceCounter) as ReturnType<Splicing['counters']>
  }

  /** Detaches everything that is not pinned, and unloads. */
  close(): void {
    this.#links.close()
    this.#arm.close()
    this.#settle.close()
    this.#forget.close()
    this.#admit.close()
    this.#bare?.close()
    this.#object.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #run(run: PreparedRun, pair: number, serial: number, family: 4 | 6): Carriage {
    run.packet.writeUInt16BE(etherType[family], frame - 2)
    run.packet.writeUInt32LE(pair, frame)
    run.packet.writeUInt32LE(serial, frame + 4)
    return answer(run)
  }

  #program(direction: 'ingress' | 'egress', { hasMac }: Pick<Device, 'hasMac'>): number {
    if (hasMac) return this.#object.program(`splice_${direction}`)
    this.#bare ??= LoadedObject.load('the splice programs for interfaces without a header', objectPath, {
      shared: this.#object.maps,
      settings: this.#settings,
      loads: isBare,
    })
    return this.#bare.program(`splice_${direction}_bare`)
  }

  /** Attaches, and pins where there is a directory. */
  #add(name: string, attach: () => number): void {
    this.#links.add(name, () => {
      const link = attach()
      try {
        if (this.#directory !== undefined) pin(link, this.#directory, name)
        return link
      } catch (error) {
        closeSync(link)
        throw error
      }
    })
  }
}

/** Of programs: for tun, wireguard and ppp, which most hosts have none of. */
const isBare = (program: string) => program.endsWith('_bare')

function pin(link: number, directory: string, name: string): void {
  const path = `${directory}/${name}`
  // A process that was killed may have left one; a bpf file system takes no names with dots.
  const fresh = `${directory}/new-${name}`
  rmSync(fresh, { force: true })
  bpf.pin(`pin ${path}`, link, fresh)
  // In place of an earlier process's, which ends with this: at no time is there neither.
  renameSync(fresh, path)
}

const unfit: Carriage = {
  sent: 0n,
  received: 0n,
  idleNs: 0n,
  state: PairState.unfit,
  unfit: Unfit.not,
  by: 0,
  alone: 0,
  half: 0,
}

function answer(run: PreparedRun): Carriage {
  const returned = run.run()
  if (returned !== 0) throw new Error(`a splice program answered ${returned}`)
  return readCarriage(run.packet, frame)
}

/** What {@link Splicing.arm} needs to know. */
export interface ArmRequest extends Omit<Arming, 'upstream'> {
  /** IP version of `client`. */
  readonly family: 4 | 6
  /** Descriptor of the connected one. */
  readonly towardsUpstream: number
}

/** A pair by what its packets carry: those of the program, and those of the upstream. */
export interface PairAddresses {
  readonly pair: number
  readonly serial: number
  readonly client: FlowKey
  readonly fromUpstream: FlowKey
}

/** Ends what outlives its process: programs detach, and packets of the connections that they carried find nobody. */
export function unpin(directory: string): void {
  rmSync(directory, { recursive: true, force: true })
}
