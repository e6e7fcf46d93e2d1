import type { Packet } from '@tproxy/core'
import ipaddr from 'ipaddr.js'

/** How a packet is dressed, besides what rules look at. */
export interface Dress {
  /** 802.1Q tags in front of the IP header. */
  readonly tags?: number
  /** IPv6: destination options headers of 8 bytes. IPv4: as many words of options. */
  readonly extensions?: number
  /** A fragment at this offset, in units of 8 bytes, of datagram `id`; `more` follow. */
  readonly fragment?: { readonly id: number; readonly offset: number; readonly more: boolean }
  /** Bytes that are kept of all this. */
  readonly length?: number
}

const bytesOf = (address: string) => Buffer.from(ipaddr.parse(address).toByteArray())

/** An Ethernet frame. TCP segments are SYNs. */
export function frame(packet: Packet, dress: Dress = {}): Buffer {
  const ethernet = Buffer.alloc(12)
  const type = packet.ip === 4 ? 0x0800 : 0x86dd
  const tags = Buffer.concat(Array.from({ length: dress.tags ?? 0 }, (_, i) => u16(0x8100, 10 + i)))
  const payload =
    dress.fragment !== undefined && dress.fragment.offset > 0 ? Buffer.alloc(64, 0xee) : transport(packet)
  const ip = packet.ip === 4 ? v4(packet, dress, payload) : v6(packet, dress, payload)
  const whole = Buffer.concat([ethernet, tags, u16(type), ip, payload])
  return dress.length === undefined ? whole : whole.subarray(0, dress.length)
}

function u16(...values: number[]): Buffer {
  const buffer = Buffer.alloc(values.length * 2)
  for (const [index, value] of values.entries()) buffer.writeUInt16BE(value, index * 2)
  return buffer
}

function transport({ protocol, sport = 0, dport = 0 }: Packet): Buffer {
  const ports = u16(sport, dport)
  if (protocol === 6) {
    const tcp = Buffer.concat([ports, Buffer.alloc(16)])
    tcp[12] = 5 << 4
    tcp[13] = 0x02
    return tcp
  }
  // Echo requests, to which refusals are answered.
  if (protocol === 1) return Buffer.concat([Buffer.from([8, 0]), Buffer.alloc(30)])
  if (protocol === 58) return Buffer.concat([Buffer.from([128, 0]), Buffer.alloc(30)])
  return Buffer.concat([ports, Buffer.alloc(28)])
}

function v4({ protocol, dscp, source, destination }: Packet, dress: Dress, payload: Buffer): Buffer {
  const words = dress.extensions ?? 0
  const header = Buffer.alloc(20 + words * 4, 1)
  header.fill(0, 0, 20)
  header[0] = (4 << 4) | (5 + words)
  header[1] = dscp << 2
  header.writeUInt16BE(header.length + payload.length, 2)
  const { id = 0, offset = 0, more = false } = dress.fragment ?? {}
  header.writeUInt16BE(id, 4)
  header.writeUInt16BE(offset | (more ? 0x2000 : 0), 6)
  header[8] = 64
  header[9] = protocol
  bytesOf(source).copy(header, 12)
  bytesOf(destination).copy(header, 16)
  return header
}

function v6({ protocol, dscp, source, destination }: Packet, dress: Dress, payload: Buffer): Buffer {
  const { fragment } = dress
  const nexts = [
    ...Array.from({ length: dress.extensions ?? 0 }, () => 60),
    ...(fragment === undefined ? [] : [44]),
    protocol,
  ]
  const extensions = nexts.slice(1).map((next, index) => {
    const extension = Buffer.alloc(8)
    extension[0] = next
    if (nexts[index] === 44 && fragment !== undefined) {
      extension.writeUInt16BE((fragment.offset << 3) | (fragment.more ? 1 : 0), 2)
      extension.writeUInt32BE(fragment.id, 4)
    }
    return extension
  })
  const header = Buffer.alloc(40)
  header.writeUInt32BE(((6 << 28) | (dscp << 22)) >>> 0, 0)
  header.writeUInt16BE(extensions.length * 8 + payload.length, 4)
  header[6] = nexts[0] ?? 0
  header[7] = 64
  bytesOf(source).copy(header, 8)
  bytesOf(destination).copy(header, 24)
  return Buffer.concat([header, ...extensions])
}
