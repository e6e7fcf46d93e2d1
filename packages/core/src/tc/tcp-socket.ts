import { Socket } from 'node:net'
import {
  closeDescriptor,
  duplicate,
  endInOrder,
  peek,
  receive,
  resetOnClose,
  silence,
  stopKeepAlive,
  transmit,
} from '@tproxy/bpf'
import { reason } from '../errors.ts'
import { reset } from '../relay.ts'
import type { LazyStream } from '../transport.ts'

/** Stands in for the stream of a socket that is not ours any more, or never was. */
export const goneStream: Socket = new Socket().destroy()

/**
 * A connected TCP socket, which is a descriptor until somebody wants a stream: that costs node some 50 µs and 5 KB, and what the
 * kernel carries never needs one.
 */
export class TcpSocket implements LazyStream {
  /** Ours to close; undefined while a stream has it, and when it is gone. */
  #fd: number | undefined
  #stream: Socket | undefined
  /** Who had it may have set options. */
  #hadStream = false
  #isSilent = false
  #closed: (() => void) | undefined

  /** `closed` is called once, when its descriptor is closed, or handed on. */
  constructor(socket: number | Socket, closed?: () => void) {
    this.#closed = closed
    if (typeof socket === 'number') this.#fd = socket
    else this.#own(socket)
  }

  /** The one stream of it, paused at first; a closed one when it is silent, or gone. */
  get stream(): Socket {
    if (this.#isSilent) return goneStream
    if (this.#fd !== undefined) {
      const stream = new Socket({ fd: this.#fd, allowHalfOpen: true })
      this.#fd = undefined
      // It has begun to read, and stops when it holds a chunk.
      this.#own(stream.pause())
    }
    return this.#stream ?? goneStream
  }

  /** Undefined once it is closed: the number may belong to another by now. */
  get descriptor(): number | undefined {
    return this.#fd ?? (this.#stream && descriptorOf(this.#stream))
  }

  /** Whether somebody has made a stream of it, and has that do something still. */
  get isBusy(): boolean {
    const stream = this.#stream
    return (
      stream !== undefined &&
      (stream.writableLength > 0 ||
        stream.writableEnded ||
        stream.readableEnded ||
        stream.readableEncoding !== null)
    )
  }

  get hasStream(): boolean {
    return this.#stream !== undefined
  }

  /** Bytes that its stream has read, and nobody took yet. */
  get held(): number {
    return this.#stream?.readableLength ?? 0
  }

  /**
   * Ends its stream, but not the connection, unless no descriptor is left for that. Returns what the stream had read and nobody
   * took, if anything.
   */
  detach(): Buffer | undefined {
    const stream = this.#stream
    const fd = stream && descriptorOf(stream)
    const own = fd && tryDuplicate(fd)
    if (stream === undefined || own === undefined) return undefined
    const held = stream.readableLength > 0 ? (stream.read() as Buffer) : undefined
    this.#fd = own
    this.#stream = undefined
    stream.destroy()
    return held
  }

  /** Reads what is there, see `receive`; nothing while it has a stream. Throws a {@link BrokenSocket}. */
  read(into: Buffer): number | undefined {
    try {
      return this.#fd === undefined ? undefined : receive(this.#fd, into)
    } catch (cause) {
      throw new BrokenSocket(this, cause)
    }
  }

  /** Like {@link read}, and leaves there what it reads. */
  peek(into: Buffer): number | undefined {
    try {
      return this.#fd === undefined ? undefined : peek(this.#fd, into)
    } catch (cause) {
      throw new BrokenSocket(this, cause)
    }
  }

  /** Writes what fits, nothing while it has a stream. Throws a {@link BrokenSocket}. */
  write(bytes: Buffer): number {
    try {
      return this.#fd === undefined ? 0 : transmit(this.#fd, bytes)
    } catch (cause) {
      throw new BrokenSocket(this, cause)
    }
  }

  /** Ends the connection with a reset. */
  reset(): void {
    if (this.#stream !== undefined) reset(this.#stream)
    else if (this.#fd !== undefined) {
      resetOnClose(this.#fd)
      this.#close()
    }
  }

  resetOnClose(): void {
    const fd = this.descriptor
    if (fd !== undefined) resetOnClose(fd)
  }

  closeInOrder(): void {
    const fd = this.descriptor
    if (fd !== undefined) endInOrder(fd)
  }

  /** Says nothing any more. Its stream, if any, ends: it could not read (EPERM), and would close what is to stay. */
  silence(): void {
    this.#isSilent = true
    const fd = this.descriptor
    if (fd !== undefined) silence(fd)
    this.detach()
  }

  /** Closes it; silent, without a word. */
  close(): void {
    this.#stream?.destroy()
    this.#close()
  }

  /** Falls silent, and hands its descriptor on, to be closed by the caller; undefined when there is none. */
  release(): number | undefined {
    this.silence()
    const held = this.descriptor
    if (this.#hadStream && held !== undefined) stopKeepAlive(held)
    const fd = this.#fd
    this.#fd = undefined
    // Without a descriptor left, its port may be taken again: better than to lose the connection.
    this.#stream?.destroy()
    this.#over()
    return fd
  }

  #own(stream: Socket): void {
    this.#stream = stream
    this.#hadStream = true
    // It shows again when somebody reads.
    stream.on('error', () => {})
    stream.once('close', () => {
      if (this.#stream === stream) this.#over()
    })
  }

  #close(): void {
    if (this.#fd === undefined) return
    closeDescriptor(this.#fd)
    this.#fd = undefined
    this.#over()
  }

  #over(): void {
    this.#closed?.()
    this.#closed = undefined
  }
}

/** What was going on with a connection cannot go on: it was reset. */
export class BrokenSocket extends Error {
  override readonly name = 'BrokenSocket'
  readonly socket: TcpSocket

  constructor(socket: TcpSocket, cause: unknown) {
    super(reason(cause), { cause })
    this.socket = socket
  }
}

function tryDuplicate(fd: number): number | undefined {
  try {
    return duplicate(fd)
  } catch {
    return undefined
  }
}

function descriptorOf(stream: Socket): number | undefined {
  const handle = (stream as unknown as { _handle: { fd: number } | null })._handle
  return handle !== null && handle.fd >= 0 ? handle.fd : undefined
}
