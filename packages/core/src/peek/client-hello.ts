import type { Guess } from './guess.ts'
import { hostName } from './host-name.ts'

const handshakeRecord = 22
const clientHello = 1
const serverNameExtension = 0
const hostNameType = 0
const longestRecord = 2 ** 14

/** Of a handshake message: type and length. */
const headerLength = 4

/**
 * Reads a TLS ClientHello (RFC 8446, 4.1.2) and the server name in it (RFC 6066, 3), which may be spread over several
 * records. undefined when the bytes are not the beginning of one.
 *
 * read-tls-client-hello, the library for this, takes the whole message to be in one record and cannot be given up at a deadline.
 */
export function readClientHello(bytes: Buffer): Guess | undefined {
  const { message, ended } = handshakeMessage(bytes) ?? {}
  if (message === undefined || (message.length > 0 && message[0] !== clientHello)) return undefined
  if (message.length === 0) return { protocol: undefined, more: true }
  const length = lengthOf(message)
  if (message.length < length) return { protocol: 'tls', more: !ended }
  return {
    protocol: 'tls',
    name: serverName(new Cursor(message.subarray(headerLength, length))),
    more: false,
  }
}

/**
 * What the records carry of the first message, as far as they have arrived, and whether its rest cannot come; undefined when
 * they are none of a handshake. What a client sends behind it without waiting is another record: its change of cipher
 * (RFC 8446, D.4), and early data (4.2.10).
 */
function handshakeMessage(bytes: Buffer): { message: Buffer; ended: boolean } | undefined {
  let message: Buffer = Buffer.alloc(0)
  for (let at = 0; at < bytes.length && message.length < lengthOf(message); ) {
    const isHandshake = bytes[at] === handshakeRecord && (bytes[at + 1] ?? 3) === 3
    if (isHandshake && bytes.length < at + 5) break
    const length = isHandshake ? bytes.readUInt16BE(at + 3) : 0
    if (length === 0 || length > longestRecord) return at === 0 ? undefined : { message, ended: true }
    message = Buffer.concat([message, bytes.subarray(at + 5, at + 5 + length)])
    at += 5 + length
  }
  return { message, ended: false }
}

/** With its header; at least that, where it has not arrived. */
function lengthOf(message: Buffer): number {
  return headerLength + (message.length < headerLength ? 0 : message.readUIntBE(1, 3))
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
