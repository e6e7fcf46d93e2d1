import { NativeError, type PreparedRun, prepareRun, watchRingBuffer } from './ffi.ts'
import {
  Event,
  type Flow,
  type FlowKey,
  type Held,
  Limit,
  type OpeningEvent,
  Release,
  readHeld,
  readOpeningEvent,
  readWatched,
  type Watched,
  watchingSize,
  writeReleasing,
  writeWatching,
} from './layout.gen.ts'
import type { LoadedObject } from './object.ts'

/** An Ethernet header, which the kernel wants of a packet that a program is run on. */
const frame = 14

const etherType = { 4: 0x0800, 6: 0x86dd } as const

/** What the programs of hold.h and alone.h answer. */
const Answer = { released: 0, gone: 1 } as const

/** A connection that its program has begun to open, and that waits for a decision. */
export interface HeldSyn {
  /** Of this opening of its socket. */
  readonly id: number
  readonly key: FlowKey
  readonly flow: Flow
  /** MAC address that its SYN was for. */
  readonly hop: Uint8Array
  /** From its IP header on. */
  readonly syn: Uint8Array
}

/** What one that was left alone is found by; as short as can be, for it may last. */
export interface LeftAlone {
  readonly family: 4 | 6
  /** As `struct watching` of contract.h. */
  readonly watching: Buffer
}

export const leftAlone = ({ id, key, hop, flow: { slot } }: HeldSyn, family: 4 | 6): LeftAlone => ({
  family,
  watching: writeWatching(Buffer.alloc(watchingSize), { id, key, slot, hop }),
})

/** Hears of connections that programs open. */
export interface OpeningListener {
  held(held: HeldSyn): void
  /** One that was left alone is established. */
  reached(event: OpeningEvent): void
  /** One that was left alone is over, or the program of one that is held has given up. */
  ended(event: OpeningEvent): void
}

/** Connections that programs open, between their SYN and what is decided; and how those are that were then left alone. */
export class Openings {
  readonly #object: LoadedObject
  readonly #release: PreparedRun
  readonly #watch: PreparedRun
  readonly #cut: PreparedRun
  #isClosed = false

  constructor(object: LoadedObject) {
    this.#object = object
    this.#release = prepareRun('release a SYN', object.program('release'), frame + Limit.syn)
    this.#watch = prepareRun('watch a connection', object.program('watch'), frame + watchingSize)
    this.#cut = prepareRun('cut a connection', object.program('cut'), frame + watchingSize + frame)
  }

  /** Calls back for each event, in their order. What is held after {@link close} waits for nobody. */
  listen(listener: OpeningListener): { close(): void } {
    return watchRingBuffer('watch the connections', this.#object.map('events'), (bytes) => {
      switch (bytes.readUInt32LE()) {
        case Event.held:
          return listener.held(copyOf(readHeld(bytes)))
        case Event.reached:
          return listener.reached(readOpeningEvent(bytes))
        default:
          return listener.ended(readOpeningEvent(bytes))
      }
    })
  }

  /** Sends a SYN on to where its program sent it, and leaves the connection alone. False when its program has given up. */
  leaveAlone(held: HeldSyn, family: 4 | 6, ifindex: number): boolean {
    return this.#let(held, family, ifindex, Release.alone)
  }

  /** Hands it to the listener of its interface, which answers before this returns. False when its program has given up. */
  steer(held: HeldSyn, family: 4 | 6, ifindex: number): boolean {
    return this.#let(held, family, ifindex, Release.steered)
  }

  /** Has its program hear that the connection is refused. */
  refuse(held: HeldSyn, family: 4 | 6, ifindex: number): void {
    this.#let(held, family, ifindex, Release.refused)
  }

  /** How a connection is doing that was left alone; undefined when it is over. It may well outlive its interface. */
  watch(alone: LeftAlone, ifindex: number): Watched | undefined {
    const found = this.#ask(this.#watch, alone, ifindex) ?? this.#ask(this.#watch, alone, anyInterface)
    return found ? readWatched(this.#watch.packet, frame) : undefined
  }

  /** Resets both ends of one that was left alone. */
  cut(alone: LeftAlone, ifindex: number): void {
    this.#ask(this.#cut, alone, ifindex)
  }

  close(): void {
    this.#isClosed = true
    this.#release.close()
    this.#watch.close()
    this.#cut.close()
  }

  #let({ id, flow, hop, syn }: HeldSyn, family: 4 | 6, ifindex: number, release: number): boolean {
    if (this.#isClosed) return false
    const { packet } = this.#release
    idBytes.writeUInt32LE(id)
    writeReleasing(packet, { hop, slot: flow.slot, release, id: idBytes, ethertype: etherType[family] })
    packet.set(syn, frame)
    this.#release.mark = flow.mark
    return isDone(this.#release, ifindex, frame + syn.length) === true
  }

  /** Undefined where there is no such interface. */
  #ask(run: PreparedRun, { family, watching }: LeftAlone, ifindex: number): boolean | undefined {
    if (this.#isClosed) return false
    run.packet.writeUInt16BE(etherType[family], frame - 2)
    run.packet.set(watching, frame)
    return isDone(run, ifindex)
  }
}

/** As if by lo: finds all sockets but those that are bound to another. */
const anyInterface = 0

/** Undefined where there is no such interface (any more). */
function isDone(run: PreparedRun, ifindex: number, length?: number): boolean | undefined {
  run.ifindex = ifindex
  try {
    const answer = run.run(length)
    if (answer === Answer.released) return true
    if (answer === Answer.gone) return false
    throw new Error(`a program that the process runs answered ${answer}`)
  } catch (error) {
    if (error instanceof NativeError && error.errnoName === 'ENODEV') return undefined
    throw error
  }
}

const idBytes = Buffer.alloc(4)

/** The bytes that are read from are filled in again. */
function copyOf({ id, key, flow, hop, syn, length }: Held): HeldSyn {
  return {
    id,
    key: { ...key, source: new Uint8Array(key.source), destination: new Uint8Array(key.destination) },
    flow,
    hop: new Uint8Array(hop),
    syn: new Uint8Array(syn.subarray(0, length)),
  }
}
