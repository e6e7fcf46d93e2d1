/** `AF_INET` and `AF_INET6`; alike on x86_64 and aarch64. */
export const addressFamily = { 4: 2, 6: 10 } as const

/** One end of a TCP connection. */
export interface SocketEnd {
  readonly family: 4 | 6
  /** 16 bytes; v4-mapped for IPv4 (RFC 4291, 2.5.5.2). */
  readonly address: Uint8Array
  readonly port: number
}

/** Bytes of a sockaddr_in6, the longest there is here. */
export const socketAddressSize = 28

/** A new buffer for each call would be moved out of V8's heap each time, which costs more than most of the calls. */
const scratch = { 4: Buffer.alloc(16), 6: Buffer.alloc(socketAddressSize) } as const

/** sockaddr_in or sockaddr_in6, until the next of the family is written. */
export function writeSocketAddress({ family, address, port }: SocketEnd): Buffer {
  const buffer = scratch[family]
  buffer.writeUInt16LE(addressFamily[family], 0)
  buffer.writeUInt16BE(port, 2)
  const [from, to] = family === 4 ? [12, 4] : [0, 8]
  for (let at = 0; from + at < 16; at++) buffer[to + at] = address[from + at] as number
  return buffer
}

/** The IP version of what {@link readSocketAddress} reads. */
export const familyOf = (buffer: Buffer): 4 | 6 => (buffer[0] === addressFamily[4] ? 4 : 6)

/** The reverse: fills in the 16 bytes of an address, and returns the port. */
export function readSocketAddress(buffer: Buffer, address: Uint8Array): number {
  const [from, to] = familyOf(buffer) === 4 ? [4, 12] : [8, 0]
  for (let at = 0; at < to; at++) address[at] = at < 10 ? 0 : 0xff
  for (let at = 0; to + at < 16; at++) address[to + at] = buffer[from + at] as number
  return buffer.readUInt16BE(2)
}
