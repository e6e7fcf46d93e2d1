import type { Guess } from './guess.ts'
import { hostName } from './host-name.ts'

const handshakeRecord = 22
const clientHello = 1
const serverNameExtension = 0
const hostNameType = 0
const longestRecord = 2 ** 14

/**
 * Reads a TLS ClientHello (RFC 8446, 4.1.2) and the server name in it (RFC 6066, 3), which may be spread over several
 * records. undefined when the bytes are not the beginning of one.
 *
 * read-tls-client-hello, the library for this, takes the whole message to be in one record and cannot be given up at a deadline.
 */
export function readClientHello(bytes: Buffer): Guess | undefined {
  const message = handshakeMessage(bytes)
  if (message === undefined || (message.length > 0 && message[0] !== clientHello)) return undefined
  if (message.length === 0) return { protocol: undefined, more: true }
  if (message.length < 4) return { protocol: 'tls', more: true }
  const length = message.readUIntBE(1, 3)
  if (message.length < 4 + length) return { protocol: 'tls', more: true }
  return { protocol: 'tls', name: serverName(new Cursor(message.subarray(4, 4 + length))), more: false }
}

/** What the records carry, as far as they have arrived; undefined when they are none of a handshake. */
function handshakeMessage(bytes: Buffer): Buffer | undefined {
  const fragments: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const [type, major] = [bytes[at], bytes[at + 1] ?? 3]
    if (type !== handshakeRecord || major !== 3) return undefined
    if (bytes.length < at + 5) break
    const length = bytes.readUInt16BE(at + 3)
    if (length === 0 || length > longestRecord) return undefined
    fragments.push(bytes.subarray(at + 5, at + 5 + length))
    at += 5 + length
  }
  return Buffer.concat(fragments)
}

function serverName(hello: Cursor): string | undefined {
  // Version and random, session id, cipher suites, compression methods.
  if (!(hello.take(34) && hello.vector(1) && hello.vector(2) && hello.vector(1))) return undefined
  const extensions = hello.vector(2)
  for (let type: number | undefined; (type = extensions?.number(2)) !== undefined; ) {
    const extension = extensions?.vector(2)
    if (type !== serverNameExtension) continue
    const names = extension?.vector(2)
    if (names?.number(1) !== hostNameType) return undefined
    return hostName(names.vector(2)?.text() ?? '')
  }
  return undefined
}

/** Reads from bytes in order. What is not there is undefined, and nothing is read past the end. */
class Cursor {
  #bytes: Buffer

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  take(length: number): Buffer | undefined {
    if (this.#bytes.length < length) return undefined
    const taken = this.#bytes.subarray(0, length)
    this.#bytes = this.#bytes.subarray(length)
    return taken
  }

  number(size: number): number | undefined {
    return this.take(size)?.readUIntBE(0, size)
  }

  /** Bytes that are preceded by their length. */
  vector(sizeOfLength: number): Cursor | undefined {
    const length = this.number(sizeOfLength)
    const bytes = length === undefined ? undefined : this.take(length)
    return bytes && new Cursor(bytes)
  }

  text(): string {
    return this.#bytes.toString('latin1')
  }
}
