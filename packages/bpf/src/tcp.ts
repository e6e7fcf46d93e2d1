// TCP connections as descriptors. Node's own sockets cost some 50 µs each; what the kernel carries needs none.
import { c, NativeError, watchReadable } from './ffi.ts'
import type { FlowKey } from './layout.gen.ts'
import {
  familyOf,
  readSocketAddress,
  type SocketEnd,
  socketAddressSize,
  writeSocketAddress,
} from './socket-address.ts'

// Of errno.h and sys/socket.h; alike on x86_64 and aarch64.
const errno = { intr: 4, again: 11, connaborted: 103, isconn: 106, already: 114, inprogress: 115 } as const
const [nonblock, cloexec] = [0o4000, 0o2000000]
const [MSG_PEEK, MSG_NOSIGNAL] = [0x2, 0x4000]

const address = Buffer.alloc(socketAddressSize)
const length = Buffer.alloc(4)

/**
 * Takes a connection from a listening socket that does not block, and fills in the addresses of what it receives, also where it
 * is gone by now; undefined when none waits. Returns the descriptor.
 */
export function accept(listener: number, flow: FlowKey): number | undefined {
  for (;;) {
    length.writeUInt32LE(address.length)
    const fd = c.accept(listener, address, length, nonblock | cloexec)
    if (fd >= 0) {
      flow.sourcePort = readSocketAddress(address, flow.source)
      length.writeUInt32LE(address.length)
      c.localAddress('getsockname', fd, address, length)
      flow.destinationPort = readSocketAddress(address, flow.destination)
      return fd
    }
    if (fd === -errno.again) return undefined
    // Gone before we came.
    if (fd !== -errno.connaborted && fd !== -errno.intr) throw new NativeError('accept', -fd)
  }
}

/** Room for the addresses of a connection, to be filled in again and again. */
export const emptyFlow = (): FlowKey => ({
  source: new Uint8Array(16),
  destination: new Uint8Array(16),
  sourcePort: 0,
  destinationPort: 0,
})

/** Fills in the addresses of what a socket sends. Throws when it is not connected. Returns the IP version. */
export function sentBy(fd: number, flow: FlowKey): 4 | 6 {
  length.writeUInt32LE(address.length)
  c.localAddress('getsockname', fd, address, length)
  flow.sourcePort = readSocketAddress(address, flow.source)
  length.writeUInt32LE(address.length)
  c.remoteAddress('getpeername', fd, address, length)
  flow.destinationPort = readSocketAddress(address, flow.destination)
  return familyOf(address)
}

/** Where a socket is bound to. */
export function localEnd(fd: number): SocketEnd {
  length.writeUInt32LE(address.length)
  c.localAddress('getsockname', fd, address, length)
  const bytes = new Uint8Array(16)
  return { port: readSocketAddress(address, bytes), address: bytes, family: familyOf(address) }
}

/**
 * Begins to connect a socket that does not block, or looks how far that is: whether it is connected. Asked again right away it
 * often is, for a near peer answers within the call. Throws why it cannot be.
 */
export function tryConnect(fd: number, to: SocketEnd): boolean {
  const result = c.connect(fd, writeSocketAddress(to), to.family === 4 ? 16 : socketAddressSize)
  if (result === 0 || result === -errno.isconn) return true
  if (result === -errno.inprogress || result === -errno.already) return false
  throw new NativeError('connect', -result)
}

/** Reads what is there: bytes, 0 for the end, undefined for nothing yet. Throws when the connection is broken. */
export const receive = (fd: number, into: Buffer): number | undefined => read(fd, into, 0)

/** Like {@link receive}, and leaves there what it reads. */
export const peek = (fd: number, into: Buffer): number | undefined => read(fd, into, MSG_PEEK)

function read(fd: number, into: Buffer, flags: number): number | undefined {
  const result = c.recv(fd, into, into.length, flags)
  if (result >= 0) return result
  if (result === -errno.again || result === -errno.intr) return undefined
  throw new NativeError('recv', -result)
}

/** Writes what fits, and says how much that is. Throws when the connection is broken. */
export function transmit(fd: number, bytes: Buffer): number {
  const result = c.send(fd, bytes, bytes.length, MSG_NOSIGNAL)
  if (result >= 0) return result
  if (result === -errno.again || result === -errno.intr) return 0
  throw new NativeError('send', -result)
}

/** Closes a descriptor that nothing else uses. A linger of 0 seconds makes it a reset. */
export function closeDescriptor(fd: number): void {
  c.close(fd)
}

/** Calls back from the event loop whenever connections wait to be accepted. Keeps the process alive until it is closed. */
export function watchListener(fd: number, waiting: () => void): { close(): void } {
  const handle = watchReadable(fd, waiting)
  handle.ref()
  return handle
}

/** Tells of sockets what they have become: connected, readable, writable, broken. Any number for one handle of the event loop. */
export class Readiness implements Disposable {
  readonly #epoll: number
  readonly #poll: ReturnType<typeof watchReadable>
  readonly #watched = new Map<number, () => void>()
  /** Of `struct epoll_event`, which is packed on x86_64 only (include/uapi/linux/eventpoll.h). */
  readonly #event = process.arch === 'x64' ? { size: 12, data: 4 } : { size: 16, data: 8 }
  readonly #events = Buffer.alloc(64 * this.#event.size)

  constructor() {
    this.#epoll = c.createEpoll('epoll_create1', cloexec)
    this.#poll = watchReadable(this.#epoll, () => this.#look())
  }

  /**
   * Calls back whenever there is something new about a socket, or may be: ask it, until it has no more to say. Keeps the process
   * alive until it is forgotten.
   */
  watch(fd: number, changed: () => void): void {
    const [add, readable, writable, edge] = [1, 0x1, 0x4, 1 << 31]
    this.#events.writeUInt32LE((readable | writable | edge) >>> 0, 0)
    this.#events.writeInt32LE(fd, this.#event.data)
    c.controlEpoll('epoll_ctl', this.#epoll, add, fd, this.#events)
    this.#watched.set(fd, changed)
    if (this.#watched.size === 1) this.#poll.ref()
  }

  /** Before it is closed, or somebody else's. */
  forget(fd: number): void {
    if (!this.#watched.delete(fd)) return
    const remove = 2
    c.controlEpoll('epoll_ctl', this.#epoll, remove, fd, this.#events)
    if (this.#watched.size === 0) this.#poll.unref()
  }

  [Symbol.dispose](): void {
    this.#poll.close()
    c.close(this.#epoll)
  }

  #look(): void {
    const { size, data } = this.#event
    const count = c.waitEpoll(this.#epoll, this.#events, this.#events.length / size, 0)
    // They are written over by who watches another.
    const found = Array.from({ length: Math.max(0, count) }, (_, at) =>
      this.#events.readInt32LE(at * size + data),
    )
    for (const fd of found) this.#watched.get(fd)?.()
  }
}
