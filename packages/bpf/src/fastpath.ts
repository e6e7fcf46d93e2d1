import { closeSync, openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { bpf, runProgram } from './ffi.ts'
import { FastpathCounter, type FlowKey, flowKeySize, writeFlowKey } from './layout.gen.ts'
import { LoadedObject } from './object.ts'

/** `enum bpf_attach_type` of include/uapi/linux/bpf.h. */
const Attach = { sockOps: 3, skMsg: 7 } as const

const objectPath = fileURLToPath(new URL('../dist/fastpath.bpf.o', import.meta.url))

/** An Ethernet header, which the kernel wants of a packet that a program is run on. */
const frame = 14

/** Connections and messages by outcome, since load; see `enum fastpath_counter` in contract.h. */
export type FastpathCounters = Record<Exclude<keyof typeof FastpathCounter, 'max'>, bigint>

/**
 * The fastpath programs, loaded. What is attached stays until {@link close} or the end of the process. Needs what
 * `Steering` needs, and Linux 6.13: before, redirected bytes do not count against a receive buffer.
 */
export class Fastpath implements Disposable {
  readonly #object: LoadedObject
  readonly #links: number[] = []
  readonly #question = Buffer.alloc(frame + flowKeySize)
  readonly #key: Buffer = this.#question.subarray(frame)
  #closed = false

  private constructor(object: LoadedObject) {
    this.#object = object
    // An IPv4 frame, as far as the kernel looks.
    this.#question.writeUInt16BE(0x0800, frame - 2)
  }

  /**
   * Loads; nothing is attached yet. `sockets`, of `Steering`, says which connections are intercepted. The error's message
   * holds the telling line of the verifier's log.
   */
  static load(sockets?: number): Fastpath {
    const shared = sockets === undefined ? {} : { sockets }
    return new Fastpath(LoadedObject.load('the fastpath programs', objectPath, { shared }))
  }

  /** Redirects towards us, from now on, what is sent on connections that are joined; with `both`, towards the program too. */
  redirect(both: boolean): void {
    this.#attach('to_proxy', 'programs')
    if (both) this.#attach('to_program', 'accepted')
  }

  /** Records, from now on, the intercepted connections that programs of a cgroup v2 directory open, and of those below it. */
  watch(cgroup: string): void {
    const fd = openSync(cgroup, 'r')
    try {
      this.#link('remember', `attach to ${cgroup}`, fd, Attach.sockOps)
    } finally {
      closeSync(fd)
    }
  }

  /** Records one program's socket by its descriptor. */
  record(key: FlowKey, fd: number): void {
    this.#object.update('programs', this.#write(key), u64(fd))
  }

  /**
   * Begins to redirect on a recorded connection, whose accepted socket `fd` this process reads to its end. About 4 µs.
   * Returns false for one that was not recorded, which stays as it is.
   */
  join(key: FlowKey, fd: number): boolean {
    this.#object.update('accepted', this.#write(key), u64(fd))
    const { returned } = runProgram('join', this.#object.program('join'), this.#question)
    if (returned === FastpathCounter.joined) return true
    this.#object.delete('accepted', this.#key)
    return false
  }

  /** Forgets a program's socket that was never joined: it costs nothing from now on. */
  forget(key: FlowKey): void {
    this.#object.delete('programs', this.#write(key))
  }

  counters(): FastpathCounters {
    return this.#object.counters('fastpath_counters', FastpathCounter) as FastpathCounters
  }

  /** Detaches everything and unloads. What a joined socket has not read is lost: end the connections first. Idempotent. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const fd of this.#links.splice(0)) closeSync(fd)
    this.#object.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #write(key: FlowKey): Buffer {
    return writeFlowKey(this.#key, key)
  }

  #attach(program: string, map: string): void {
    this.#link(program, `attach ${program} to the sockets`, this.#object.map(map), Attach.skMsg)
  }

  #link(program: string, operation: string, target: number, type: number): void {
    this.#links.push(bpf.createLink(operation, this.#object.program(program), target, type, null))
  }
}

function u64(value: number): Buffer {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64LE(BigInt(value))
  return buffer
}
