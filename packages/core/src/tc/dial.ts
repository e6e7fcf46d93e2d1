import {
  closeDescriptor,
  NativeError,
  outboundSocket,
  Readiness,
  type SocketEnd,
  tryConnect,
} from '@tproxy/bpf'
import { endpointOf } from '../endpoint.ts'
import { connectError } from './connect-error.ts'
import { TcpSocket } from './tcp-socket.ts'

/** Opens connections, any number at once. */
export class Dialler implements Disposable {
  /** What its sockets wait with. */
  readonly readiness: Readiness = new Readiness()

  /**
   * Connects as a program itself would have: from its address, if that matters, and by its interface if its socket was bound to
   * that (`device`). Not otherwise: the kernel takes a bound and an unbound socket for different ones, and would give a program
   * the very port that ours uses towards the same destination. Returns at once where the peer is so near that it has answered.
   * Throws, or rejects, as `net.connect` fails, and when aborted.
   */
  dial(
    from: Pick<SocketEnd, 'family'> & Partial<SocketEnd>,
    to: SocketEnd,
    device: string | undefined,
    signal: AbortSignal,
  ): TcpSocket | Promise<TcpSocket> {
    let fd: number | undefined
    try {
      fd = outboundSocket(from, device)
      // Asked a second time, what has come meanwhile counts.
      return tryConnect(fd, to) || tryConnect(fd, to) ? new TcpSocket(fd) : this.#wait(fd, to, signal)
    } catch (error) {
      throw failed(fd, to, error)
    }
  }

  [Symbol.dispose](): void {
    this.readiness[Symbol.dispose]()
  }

  async #wait(fd: number, to: SocketEnd, signal: AbortSignal): Promise<TcpSocket> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const abort = () => reject(signal.reason as Error)
    signal.addEventListener('abort', abort, { once: true })
    try {
      this.readiness.watch(fd, resolve)
      await promise
      this.readiness.forget(fd)
      // Nobody is woken before it is connected or has failed (tcp_poll() of net/ipv4/tcp.c); then this throws.
      tryConnect(fd, to)
      return new TcpSocket(fd)
    } catch (error) {
      this.readiness.forget(fd)
      throw failed(fd, to, error)
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }
}

function failed(fd: number | undefined, to: SocketEnd, error: unknown): unknown {
  if (fd !== undefined) closeDescriptor(fd)
  return error instanceof NativeError
    ? connectError(error.errno, endpointOf(to.address, to.port), error)
    : error
}
