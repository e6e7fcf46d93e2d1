import { isIP } from 'node:net'
import {
  codePoints,
  endpoint,
  nearest,
  type Packet,
  parseDscp,
  parseProtocol,
  protocols,
  TproxyError,
} from '@tproxy/core'
import { getent, groupNumber } from '../invoker.ts'

/** What is known of a packet besides its ends; as options have it. */
export interface PacketOptions {
  readonly uid?: string | undefined
  readonly gid?: string | undefined
  readonly cgroup?: string | undefined
  readonly process?: string | undefined
  readonly interface?: string | undefined
  readonly mark?: string | undefined
  readonly dscp?: string | undefined
}

/** `PROTO SRC[:PORT] DST[:PORT]`. Throws `E_OPTION`. */
export function parsePacket(words: readonly string[], options: PacketOptions): Packet {
  const [protocol, from, to, ...rest] = words
  if (protocol === undefined || from === undefined || to === undefined || rest.length > 0)
    throw new TproxyError('E_OPTION', 'rules explain needs a protocol and two addresses', {
      hint: 'as in: rules explain tcp 192.0.2.1 203.0.113.10:443',
    })
  const [source, destination] = [parseEnd(from), parseEnd(to)]
  if (source.ip !== destination.ip)
    throw new TproxyError('E_OPTION', `${from} and ${to} are of different IP versions`)
  const { cgroup, process, interface: name } = options
  return {
    ip: source.ip,
    protocol: protocolNumber(protocol),
    source: source.address,
    destination: destination.address,
    ...(source.port !== undefined && { sport: source.port }),
    ...(destination.port !== undefined && { dport: destination.port }),
    mark: number('mark', options.mark, 0xffffffff) ?? 0,
    dscp: options.dscp === undefined ? 0 : codePoint(options.dscp),
    ...known('uid', numberOrName('uid', options.uid)),
    ...known('gid', numberOrName('gid', options.gid)),
    ...known('process', process),
    ...known('interface', name),
    ...known('cgroups', cgroup === undefined ? undefined : [cgroup]),
  }
}

const known = <Key extends string, T>(key: Key, value: T | undefined) =>
  (value === undefined ? {} : { [key]: value }) as { [Name in Key]?: T }

function protocolNumber(text: string): number {
  const [low, high] = parseProtocol(text) ?? []
  if (low !== undefined && low === high) return Number(low)
  const near = nearest(text, Object.keys(protocols))
  throw new TproxyError('E_OPTION', `"${text}" is no protocol`, {
    hint: near === undefined ? 'such as tcp, udp or 47' : `did you mean ${near}?`,
  })
}

/**
 * `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`. What an IPv6 socket sends to `::ffff:192.0.2.1` is IPv4.
 * Throws `E_OPTION`.
 */
export function parseEnd(text: string): { ip: 4 | 6; address: string; port: number | undefined } {
  const [, bracketed, plain = text, port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(text) ?? []
  const address = bracketed ?? plain
  if (address.includes('%'))
    throw new TproxyError('E_OPTION', `"${text}" is an address with a zone`, {
      hint: `write ${address.replace(/%.*/, '')}`,
    })
  if (isIP(address) === 0 || Number(port ?? 0) > 65_535)
    throw new TproxyError('E_OPTION', `"${text}" is no address`, {
      hint: 'such as 192.0.2.1, 192.0.2.1:80 or [2001:db8::1]:80',
    })
  const end = endpoint(address, Number(port ?? 0))
  return { ip: end.family, address: end.address, port: port === undefined ? undefined : end.port }
}

function codePoint(text: string): number {
  const [low, high] = parseDscp(text) ?? []
  if (low !== undefined && low === high) return Number(low)
  const near = nearest(text, Object.keys(codePoints))
  throw new TproxyError('E_OPTION', `--dscp is "${text}"`, {
    hint: near === undefined ? 'a number up to 63, or a name such as ef' : `did you mean ${near}?`,
  })
}

/** A user or group, by its number or its name here. */
function numberOrName(option: 'uid' | 'gid', text: string | undefined): number | undefined {
  if (text === undefined || /^\d/.test(text)) return number(option, text, 0xffffffff)
  const [found, what] = option === 'uid' ? [getent(text)?.uid, 'user'] : [groupNumber(text), 'group']
  if (found === undefined)
    throw new TproxyError('E_OPTION', `--${option}: there is no ${what} ${text}`, {
      hint: `see getent ${option === 'uid' ? 'passwd' : 'group'}`,
    })
  return Number(found)
}

function number(name: string, text: string | undefined, max: number): number | undefined {
  if (text === undefined) return undefined
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text) || Number(text) > max)
    throw new TproxyError('E_OPTION', `--${name} is "${text}"`, { hint: `a number up to ${max}` })
  return Number(text)
}
