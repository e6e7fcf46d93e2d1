import type { Socket } from 'node:net'
import type { Destination, Upstream } from '../upstream.ts'
import { socketPair } from './socket-pair.ts'

/** Answers one connection. The socket is paused; what it does stands for both the upstream and what is behind it. */
type Serve = (socket: Socket, destination: Destination) => void

/** An upstream that is served in this process, by default with an echo, and remembers where it was to connect to. */
export class TestUpstream implements Upstream {
  readonly name: string
  readonly destinations: Destination[] = []
  /** As of every upstream. It is bound, so that it can stand for `direct` of a `LocalTransport` too. */
  readonly connect: Upstream['connect']

  constructor(name = 'test', serve: Serve = (socket) => void socket.pipe(socket)) {
    this.name = name
    this.connect = async (destination) => {
      this.destinations.push(destination)
      const [near, far] = await socketPair()
      far.on('error', () => {})
      serve(far, destination)
      return near
    }
  }
}
