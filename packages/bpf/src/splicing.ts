import { closeSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { linkTcx, runProgram, watchRingBuffer } from './ffi.ts'
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
  readCarriage,
  readLeg,
  readPairEvent,
  type Settings,
  settingsSize,
  writeArming,
  writeDevice,
  writeFlowKey,
  writeSettings,
} from './layout.gen.ts'
import { LoadedObject, Tcx } from './object.ts'

const objectPath = fileURLToPath(new URL('../dist/splice.bpf.o', import.meta.url))

/** An Ethernet header, which the kernel wants of a packet that a program is run on. */
const frame = 14

/** Of `struct __sk_buff`, include/uapi/linux/bpf.h. */
const skb = { size: 192, cb: 48 } as const

/**
 * The splice programs, loaded. What is attached stays until {@link close} or the end of the process. Needs what
 * `Steering` needs.
 */
export class Splicing implements Disposable {
  readonly #object: LoadedObject
  readonly #links = new Map<string, number>()
  readonly #question = Buffer.alloc(frame + armingSize)
  readonly #answer = Buffer.alloc(frame + armingSize)
  readonly #key = Buffer.alloc(flowKeySize)
  readonly #leg = Buffer.alloc(legSize)

  private constructor(object: LoadedObject) {
    this.#object = object
    // An IPv4 frame, as far as the kernel looks.
    this.#question.writeUInt16BE(0x0800, frame - 2)
  }

  /** Opens, configures and loads. The error's message holds the telling line of the verifier's log. */
  static load(settings: Settings): Splicing {
    return new Splicing(
      LoadedObject.load(
        'the splice programs',
        objectPath,
        writeSettings(Buffer.alloc(settingsSize), settings),
      ),
    )
  }

  /** Looks at an interface from now on; before `steering`, the program that intercepts there. */
  attach(name: string, device: Device, steering: number): void {
    const { ifindex, hasMac } = device
    this.#object.update('hooked', u32(ifindex), writeDevice(Buffer.alloc(deviceSize), device))
    const suffix = hasMac ? '' : '_bare'
    const link = (direction: 'ingress' | 'egress', before?: number) =>
      linkTcx(`attach splice_${direction} to ${name}`, {
        program: this.#object.program(`splice_${direction}${suffix}`),
        ifindex,
        attachType: Tcx[direction],
        first: false,
        ...(before !== undefined && { before }),
      })
    this.#links.set(`ingress ${ifindex}`, link('ingress'))
    this.#links.set(`egress ${ifindex}`, link('egress', steering))
  }

  /** Looks at lo from now on; before `steering`. */
  attachLoopback(ifindex: number, steering: number): void {
    const program = this.#object.program('splice_loopback')
    const link = { program, ifindex, attachType: Tcx.egress, first: false, before: steering }
    this.#links.set('loopback', linkTcx('attach splice_loopback to lo', link))
  }

  /** Forgets an interface that is gone. */
  detach(ifindex: number): void {
    for (const name of [`ingress ${ifindex}`, `egress ${ifindex}`]) {
      const fd = this.#links.get(name)
      if (fd !== undefined) closeSync(fd)
      this.#links.delete(name)
    }
    this.#object.delete('hooked', u32(ifindex))
  }

  /** Has the kernel carry two connections as one, if it can. About 5 µs. */
  arm(arming: Arming): Carriage {
    writeArming(this.#question, arming, frame)
    return this.#run('arm')
  }

  /** How a pair is doing; silences our sockets when nothing is left for them to do. About 2 µs. */
  settle(pair: number, serial: number): Carriage {
    this.#question.writeUInt32LE(pair, frame)
    this.#question.writeUInt32LE(serial, frame + 4)
    return this.#run('settle')
  }

  /** Resets both ends of a pair. */
  sever(pair: number, serial: number, family: 4 | 6): void {
    const packet = Buffer.alloc(frame + (family === 6 ? 40 : 20) + 20)
    packet.writeUInt16BE(family === 6 ? 0x86dd : 0x0800, frame - 2)
    const context = Buffer.alloc(skb.size)
    context.writeUInt32LE(pair, skb.cb)
    context.writeUInt32LE(serial, skb.cb + 4)
    runProgram('sever a connection', this.#object.program('sever'), packet, { context })
  }

  /** Forgets the addresses of a pair, unless they belong to a later one. */
  forget(pair: number, client: FlowKey, fromUpstream: FlowKey): void {
    for (const key of [client, fromUpstream]) {
      writeFlowKey(this.#key, key)
      if (this.#object.lookup('legs', this.#key, this.#leg) && readLeg(this.#leg).pair === pair)
        this.#object.delete('legs', this.#key)
    }
  }

  /** Calls back when a pair changes its state by a packet. */
  watch(changed: (event: PairEvent) => void): { close(): void } {
    return watchRingBuffer('watch the pairs', this.#object.map('pair_events'), (bytes) =>
      changed(readPairEvent(bytes)),
    )
  }

  /** Detaches everything and unloads. Idempotent. */
  close(): void {
    for (const fd of this.#links.values()) closeSync(fd)
    this.#links.clear()
    this.#object.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #run(program: 'arm' | 'settle'): Carriage {
    const { returned } = runProgram(program, this.#object.program(program), this.#question, {
      answer: this.#answer,
    })
    if (returned !== 0) throw new Error(`${program}: the program answered ${returned}`)
    return readCarriage(this.#answer, frame)
  }
}

function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32LE(value)
  return buffer
}
