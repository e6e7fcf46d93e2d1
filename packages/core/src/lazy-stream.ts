import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { reset } from './relay.ts'
import { TcpSocket } from './tc/tcp-socket.ts'
import type { LazyStream } from './transport.ts'

/** A stream that there is already. */
class ReadyStream implements LazyStream {
  readonly stream: Duplex

  constructor(stream: Duplex) {
    this.stream = stream
  }

  reset(): void {
    reset(this.stream)
  }
}

export function asLazy(stream: Duplex | LazyStream): LazyStream {
  if ('stream' in stream && 'reset' in stream) return stream
  return isTcp(stream as Duplex) ? new TcpSocket(stream as Socket) : new ReadyStream(stream as Duplex)
}

/** And not something else: TLS, whose bytes are not those of the connection, or a Unix socket, which has no address. */
const isTcp = (stream: Duplex) =>
  Object.getPrototypeOf(stream) === Socket.prototype && (stream as Socket).remoteAddress !== undefined
