import type { TcpSocket } from './tcp-socket.ts'

/** All that is moved goes through it: nothing stays in it between two calls. */
const chunk = Buffer.alloc(65_536)

/**
 * Moves what one of our sockets has received to the other, both without a stream. Returns whether all is moved; else the other is
 * full, and has a stream by now with the rest in it, or the end has come: somebody has to relay. `first` goes before what is
 * still to be read. Throws when a connection is broken.
 */
export function pump(from: TcpSocket, to: TcpSocket, first?: Buffer): boolean {
  if (first !== undefined && !put(to, first)) return false
  for (;;) {
    const length = from.read(chunk)
    if (length === undefined) return true
    if (length === 0 || !put(to, chunk.subarray(0, length))) return false
  }
}

function put(to: TcpSocket, bytes: Buffer): boolean {
  const written = to.write(bytes)
  if (written === bytes.length) return true
  to.stream.write(Buffer.from(bytes.subarray(written)))
  return false
}
