import type { Socket } from 'node:net'
import { readClientHello } from './client-hello.ts'
import type { Guess } from './guess.ts'
import { readHttpRequest } from './http-request.ts'

/** What a program's first words say. All of it is a claim of the program. */
export interface Peeked {
  /** undefined when it is neither, or the program did not speak in time, as where the server speaks first. */
  readonly protocol: 'tls' | 'http' | undefined
  /**
   * The server name of a TLS ClientHello, or the Host of an HTTP/1 request, without its port: a valid host name in lower case,
   * never an address. With Encrypted Client Hello it is the outer, public name.
   */
  readonly name?: string
}

/** More is neither waited for nor looked at: heads of requests and ClientHellos are smaller. */
const longest = 16_384

/** Looking at what a socket receives; `stop` ends it with what is known by then. */
export interface Peek {
  readonly peeked: Promise<Peeked>
  stop(): void
}

/** What bytes say that a program sent first. */
export function recognise(bytes: Buffer): Guess {
  return readClientHello(bytes) ?? readHttpRequest(bytes) ?? { protocol: undefined, more: false }
}

/**
 * Looks at the first bytes that a paused socket receives, and leaves all of them in it. Ends when they have said what they
 * can say, at the deadline, or when the socket ends. Never rejects.
 */
export function peek(socket: Socket, deadlineMs: number): Peek {
  const { promise, resolve } = Promise.withResolvers<Peeked>()
  let guess: Guess = { protocol: undefined, more: true }
  let seen = 0
  const stop = () => {
    clearTimeout(timer)
    socket.off('readable', look).off('end', stop).off('close', stop)
    const { protocol, name } = guess
    resolve({ protocol, ...(name !== undefined && { name }) })
  }
  const look = () => {
    const length = socket.readableLength
    // What we put back is announced again, and so is the end.
    if (length === seen) return
    seen = length
    // Exactly what is there: asking for more would end a stream whose end is near, and that takes nothing back.
    const bytes = socket.read(length) as Buffer
    socket.unshift(bytes)
    guess = recognise(bytes.subarray(0, longest))
    if (!guess.more || length >= longest) stop()
  }
  const timer = setTimeout(stop, deadlineMs)
  if (socket.destroyed || socket.readableEnded) stop()
  else socket.on('readable', look).on('end', stop).on('close', stop)
  return { peeked: promise, stop }
}
