import { closeSync } from 'node:fs'
import { bpf, NativeError } from './ffi.ts'

/** `struct bpf_link_info` of include/uapi/linux/bpf.h; target is an interface or a namespace, 0 for nothing. */
const link = { size: 128, type: 0, target: 16 } as const

/** `enum bpf_link_type`, of those that can be detached: BPF_LINK_TYPE_NETNS and BPF_LINK_TYPE_TCX. */
const detachable: readonly number[] = [5, 11]

/** The interface is. */
const isGone = (error: unknown): boolean => error instanceof NativeError && error.errnoName === 'ENODEV'

/** What somebody had detached. */
export interface Restored {
  readonly name: string
  /** Why it is not attached again. */
  readonly error?: Error
}

/** What is attached, by name, each held by a file descriptor: what is closed, or ends with this process, is detached. */
export class Links {
  readonly #links = new Map<string, { fd: number; attach: () => number }>()

  /** The file descriptors: a process that inherits them keeps the programs attached. */
  get descriptors(): readonly number[] {
    return [...this.#links.values()].map(({ fd }) => fd)
  }

  /** Attaches by calling `attach`, which returns a link. */
  add(name: string, attach: () => number): void {
    this.#links.set(name, { fd: attach(), attach })
  }

  remove(name: string): void {
    const link = this.#links.get(name)
    if (link !== undefined) closeSync(link.fd)
    this.#links.delete(name)
  }

  /**
   * Attaches again what somebody has detached (BPF_LINK_DETACH), and tells what that was. What went with its interface is left
   * alone, and what is refused is tried again the next time.
   */
  restore(): Restored[] {
    const restored: Restored[] = []
    for (const [name, { fd, attach }] of this.#links)
      try {
        if (isAttached(fd)) continue
        this.#links.set(name, { fd: attach(), attach })
        closeSync(fd)
        restored.push({ name })
      } catch (error) {
        if (!isGone(error)) restored.push({ name, error: error as Error })
      }
    return restored
  }

  close(): void {
    for (const { fd } of this.#links.values()) closeSync(fd)
    this.#links.clear()
  }
}

function isAttached(fd: number): boolean {
  const info = Buffer.alloc(link.size)
  bpf.objectInfo('look at a link', fd, info)
  return !detachable.includes(info.readUInt32LE(link.type)) || info.readUInt32LE(link.target) !== 0
}

/** Of `struct bpf_prog_info`, include/uapi/linux/bpf.h. */
const program = { size: 80, id: 4, name: 64, nameLength: 16 } as const

/** What a program is known by in the kernel. */
export function programId(fd: number): number {
  return programInfo(fd).readUInt32LE(program.id)
}

function programInfo(fd: number): Buffer {
  const info = Buffer.alloc(program.size)
  bpf.objectInfo('look at a program', fd, info)
  return info
}

/** Ids of the programs at a hook of an interface, in the order in which they see a packet (tcx, since 6.6); none when it is gone. */
export function programsAt(ifindex: number, attachType: number): number[] {
  const most = 64
  const [flags, ids, count] = [Buffer.alloc(4), Buffer.alloc(4 * most), Buffer.alloc(4)]
  count.writeUInt32LE(most)
  try {
    bpf.queryPrograms('list the programs of an interface', ifindex, attachType, 0, flags, ids, count)
  } catch (error) {
    if (isGone(error)) return []
    throw error
  }
  return Array.from({ length: count.readUInt32LE() }, (_, at) => ids.readUInt32LE(at * 4))
}

/** As its author called it; undefined when it is gone. */
export function programName(id: number): string | undefined {
  try {
    const fd = bpf.programById('look at a program', id)
    try {
      const { name, nameLength } = program
      return programInfo(fd)
        .toString('latin1', name, name + nameLength)
        .replace(/\0.*$/s, '')
    } finally {
      closeSync(fd)
    }
  } catch {
    return undefined
  }
}
