import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/** Inclusive, as numbers of the field's width. */
export type Range = readonly [low: bigint, high: bigint]

/** Addresses of one family. */
export interface AddressRange {
  readonly family: 4 | 6
  readonly range: Range
}

/** `10.0.0.0/8`, `2001:db8::1`, `10.0.0.1-10.0.0.9`; bits behind a prefix do not count. undefined for anything else. */
export function parseAddresses(text: string): AddressRange | undefined {
  const [first = '', last, ...rest] = text.split('-')
  if (rest.length > 0) return undefined
  if (last !== undefined) {
    const [low, high] = [parseAddress(first), parseAddress(last)]
    if (low === undefined || high === undefined || low.family !== high.family) return undefined
    return low.value <= high.value ? { family: low.family, range: [low.value, high.value] } : undefined
  }
  const [host = '', length, ...more] = text.split('/')
  const address = parseAddress(host)
  if (address === undefined || more.length > 0) return undefined
  // A prefix of ::ffff:0:0/96 has the length it has in IPv6.
  const width = address.family === 4 ? 32 : 128
  const written = ipaddr.parse(host).kind() === 'ipv4' ? 32 : 128
  if (length === undefined) return { family: address.family, range: [address.value, address.value] }
  const bits = /^\d{1,3}$/.test(length) ? Number(length) - written + width : -1
  if (bits < 0 || bits > width) return undefined
  const rest1 = (1n << BigInt(width - bits)) - 1n
  return { family: address.family, range: [address.value & ~rest1, address.value | rest1] }
}

function parseAddress(text: string): { family: 4 | 6; value: bigint } | undefined {
  if (isIP(text) === 0 || text.includes('%')) return undefined
  const parsed = ipaddr.process(text)
  const value = parsed.toByteArray().reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n)
  return { family: parsed.kind() === 'ipv4' ? 4 : 6, value }
}

/** `443`, `8000-8999`, `0x10`, or a number, up to `max`. undefined for anything else. */
export function parseNumbers(given: string | number, max: number): Range | undefined {
  if (typeof given === 'number') return inRange(given, given, max)
  const match = /^(0x[0-9a-f]+|\d+)(?:-(0x[0-9a-f]+|\d+))?$/i.exec(given)
  if (match === null) return undefined
  const low = Number(match[1])
  return inRange(low, match[2] === undefined ? low : Number(match[2]), max)
}

function inRange(low: number, high: number, max: number): Range | undefined {
  if (!Number.isInteger(low) || !Number.isInteger(high) || low < 0 || low > high || high > max)
    return undefined
  return [BigInt(low), BigInt(high)]
}

/** What a name stands for in a table; undefined for what objects inherit, such as `toString`. */
export function named<T>(table: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined
}

/** Numbers of the IANA protocol registry that people know by name. */
export const protocols: Readonly<Record<string, number>> = {
  icmp: 1,
  igmp: 2,
  ipip: 4,
  tcp: 6,
  udp: 17,
  dccp: 33,
  ipv6: 41,
  gre: 47,
  esp: 50,
  ah: 51,
  icmpv6: 58,
  ospf: 89,
  pim: 103,
  vrrp: 112,
  l2tp: 115,
  sctp: 132,
  udplite: 136,
}

/** A name of {@link protocols}, or a number. undefined for anything else. */
export function parseProtocol(given: string | number): Range | undefined {
  const known = named(protocols, String(given))
  return known === undefined ? parseNumbers(given, 255) : [BigInt(known), BigInt(known)]
}

/** Code points of RFC 2474, RFC 2597, RFC 3246, RFC 5865 and RFC 8622. */
export const codePoints: Readonly<Record<string, number>> = {
  ...Object.fromEntries([0, 1, 2, 3, 4, 5, 6, 7].map((n) => [`cs${n}`, n * 8])),
  ...Object.fromEntries(
    [1, 2, 3, 4].flatMap((n) => [1, 2, 3].map((drop) => [`af${n}${drop}`, n * 8 + drop * 2])),
  ),
  le: 1,
  va: 44,
  ef: 46,
}

/** A name of {@link codePoints}, or a number or range. undefined for anything else. */
export function parseDscp(given: string | number): Range | undefined {
  const known = named(codePoints, String(given))
  return known === undefined ? parseNumbers(given, 63) : [BigInt(known), BigInt(known)]
}

/** The kernel's name of a process, as {@link processNumber} has it. undefined beyond 15 bytes. */
export function parseProcess(name: string): Range | undefined {
  const bytes = Buffer.from(name)
  if (bytes.length === 0 || bytes.length > processBytes || bytes.includes(0)) return undefined
  const value = processNumber(name)
  return [value, value]
}

/** What the kernel keeps of a process's name. */
const processBytes = 15

/** As one number, the first byte the most significant, padded with zeros to 16. */
export function processNumber(name: string): bigint {
  const padded = Buffer.alloc(16)
  Buffer.from(name).copy(padded, 0, 0, processBytes)
  return (padded.readBigUInt64BE(0) << 64n) | padded.readBigUInt64BE(8)
}
