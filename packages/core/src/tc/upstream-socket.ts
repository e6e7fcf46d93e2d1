import { once } from 'node:events'
import { connect, isIP } from 'node:net'
import { addressBytes } from '../endpoint.ts'
import { TproxyError } from '../errors.ts'
import type { LazyStream } from '../transport.ts'
import { Dialler } from './dial.ts'
import { TcpSocket } from './tcp-socket.ts'

/** Of all proxies, from the first connection on. */
let dialler: Dialler | undefined

/** What a proxy answers is short; nothing stays in it between two calls. */
const answer = Buffer.alloc(4096)

/**
 * A TCP connection to a proxy, for its handshake: what a stream would cost for two short answers is more than all else (see
 * {@link TcpSocket}). Bytes stay in the kernel until they are taken, so those that follow the handshake are there for whoever
 * carries them.
 */
export class UpstreamSocket implements Disposable {
  readonly #socket: TcpSocket
  #isWatched = false
  #isClosed = false
  #changed = () => {}

  private constructor(socket: TcpSocket) {
    this.#socket = socket
  }

  /** Connects to an address or a host name. Rejects as `net.connect` fails, and when `signal` aborts. */
  static async connect(
    { host, port }: { readonly host: string; readonly port: number },
    signal: AbortSignal,
  ): Promise<UpstreamSocket> {
    signal.throwIfAborted()
    dialler ??= new Dialler()
    const family = isIP(host)
    if (family !== 4 && family !== 6) return new UpstreamSocket(await connectByName(host, port, signal))
    const to = { family, address: addressBytes(host), port } as const
    return new UpstreamSocket(await dialler.dial({ family }, to, undefined, signal))
  }

  /** Sends all of it. Throws when the connection is broken, or the proxy does not read. */
  write(bytes: Buffer): void {
    if (this.#socket.write(bytes) < bytes.length)
      throw new TproxyError('E_UPSTREAM', `the proxy does not take ${bytes.length} bytes`)
  }

  /**
   * Resolves with what has arrived and is not taken, up to 4 KB of it, as soon as that is a byte; with none at the end. Take what it
   * shows before you ask for more. Rejects when the connection breaks, or is closed here. One at a time.
   */
  async peek(): Promise<Buffer> {
    for (;;) {
      const length = this.#socket.peek(answer)
      if (length !== undefined) return Buffer.from(answer.subarray(0, length))
      await this.#change()
    }
  }

  /** Removes bytes that {@link peek} has shown. */
  take(count: number): void {
    this.#socket.read(answer.subarray(0, count))
  }

  /** The connection, with all that is not taken; it is not ours any more. */
  release(): LazyStream {
    this.#forget()
    return this.#socket
  }

  [Symbol.dispose](): void {
    this.close()
  }

  /** Closes the connection. Nothing happens after {@link release}. */
  close(): void {
    if (this.#isClosed) return
    this.#forget()
    this.#socket.close()
    this.#changed()
  }

  #change(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#changed = () => (this.#isClosed ? reject(new Error('the connection was closed')) : resolve())
    const fd = this.#socket.descriptor
    if (this.#isClosed || fd === undefined) this.#changed()
    else if (!this.#isWatched) {
      this.#isWatched = true
      dialler?.readiness.watch(fd, () => this.#changed())
    }
    return promise
  }

  #forget(): void {
    this.#isClosed = true
    const fd = this.#socket.descriptor
    if (this.#isWatched && fd !== undefined) dialler?.readiness.forget(fd)
    this.#isWatched = false
  }
}

/** By node, which looks it up and tries its addresses (RFC 8305). It is not to read: that would be lost. */
async function connectByName(host: string, port: number, signal: AbortSignal): Promise<TcpSocket> {
  const stream = connect({ host, port, allowHalfOpen: true, signal }).pause()
  await once(stream, 'connect')
  const socket = new TcpSocket(stream)
  socket.detach()
  if (!socket.hasStream) return socket
  socket.reset()
  throw new TproxyError('E_UPSTREAM', 'no file descriptor is left')
}
