// Lists of rules like those of ClassBench (Taylor and Turner, 2007): prefixes of mixed lengths, few ports, many overlaps.
// Seeded, so that every run and every peer gets the same.
import type { Rule } from '../../packages/core/src/rules/model.ts'

/** `mixed`: half of the rules for each. */
export type Family = 4 | 6 | 'mixed'

export interface Prefix {
  readonly address: bigint
  readonly length: number
}

/** A rule in the terms that all peers share; first match wins. */
export interface PlainRule {
  readonly ip: 4 | 6
  readonly to?: Prefix
  readonly from?: Prefix
  /** tcp or udp; needed for ports. */
  readonly protocol?: number
  readonly dport?: readonly [low: number, high: number]
  readonly accept: boolean
}

export interface Packet {
  readonly ip: 4 | 6
  readonly to: bigint
  readonly from: bigint
  readonly protocol: number
  readonly sport: number
  readonly dport: number
}

export const [tcp, udp] = [6, 17]

const bitsOf = { 4: 32, 6: 128 } as const

/** Numbers from 0 to below 1: Numerical Recipes' generator, which is the same everywhere. */
function generator(seed: number): { chance: (of: number) => boolean; below: (limit: number) => number } {
  let state = seed >>> 0
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
  return { chance: (of) => next() < of, below: (limit) => Math.floor(next() * limit) }
}

type Generator = ReturnType<typeof generator>

/** Unicast, and what a host would send off itself. */
function anyAddress({ below }: Generator, ip: 4 | 6): bigint {
  if (ip === 6)
    return (
      ((0x20010d00n + BigInt(below(256))) << 96n) |
      (BigInt(below(2 ** 32)) << 64n) |
      (BigInt(below(4)) << 32n) |
      BigInt(below(2 ** 32))
    )
  let first = 0
  while (first < 11 || first === 127 || first === 169 || first > 222) first = below(256)
  return (BigInt(first) << 24n) | BigInt(below(2 ** 24))
}

function prefixOf(address: bigint, length: number, ip: 4 | 6): Prefix {
  const rest = BigInt(bitsOf[ip] - length)
  return { address: (address >> rest) << rest, length }
}

function anyPrefix(random: Generator, ip: 4 | 6): Prefix {
  const lengths = ip === 4 ? [8, 16, 24, 32] : [32, 48, 64, 128]
  // 5, 25, 30 and 40 of a hundred.
  const length = lengths[[5, 30, 60, 100].findIndex((limit) => limit > random.below(100))] ?? 32
  return prefixOf(anyAddress(random, ip), length, ip)
}

/**
 * A tenth of the rules have any destination: most of these are for some source, the others for one port, or the first of
 * them would decide most packets. The first rules of a list do not depend on how long it becomes.
 */
export function makeList(count: number, family: Family, seed = 1): PlainRule[] {
  const random = generator(seed)
  const { chance, below } = random
  return Array.from({ length: count }, () => {
    const ip = family === 'mixed' ? (chance(0.5) ? 4 : 6) : family
    const to = chance(0.9) ? anyPrefix(random, ip) : undefined
    const from = chance(to === undefined ? 0.9 : 0.4) ? anyPrefix(random, ip) : undefined
    const anywhere = to === undefined && from === undefined
    const protocol = anywhere || chance(0.8) ? (chance(0.8) ? tcp : udp) : undefined
    const port = below(2000)
    const dport = [port, anywhere || chance(0.8) ? port : port + 100] as const
    return {
      ip,
      ...(to !== undefined && { to }),
      ...(from !== undefined && { from }),
      ...(protocol !== undefined && { protocol, ...((anywhere || chance(0.7)) && { dport }) }),
      accept: chance(0.5),
    }
  })
}

/** A packet of each of `count` flows, most of which some rule matches. */
export function makePackets(
  rules: readonly PlainRule[],
  count: number,
  options: { fixed?: Partial<Packet>; seed?: number } = {},
): Packet[] {
  const { fixed = {}, seed = 2 } = options
  const random = generator(seed)
  const { chance, below } = random
  const inside = ({ address, length }: Prefix, ip: 4 | 6) => {
    const rest = BigInt(bitsOf[ip] - length)
    return address | (anyAddress(random, ip) & ((1n << rest) - 1n))
  }
  return Array.from({ length: count }, () => {
    const rule = rules[below(rules.length)]
    const ip = rule?.ip ?? 4
    return {
      ip,
      to: rule?.to === undefined ? anyAddress(random, ip) : inside(rule.to, ip),
      from: rule?.from === undefined || chance(0.2) ? anyAddress(random, ip) : inside(rule.from, ip),
      protocol: rule?.protocol ?? (chance(0.5) ? tcp : udp),
      sport: 1024 + below(60_000),
      dport: rule?.dport === undefined || chance(0.1) ? 1 + below(65_535) : rule.dport[below(2)] || 1,
      ...fixed,
    }
  })
}

/** The number of the first rule that matches, from 1, or 0: plainly, one rule after the other. */
export function plainMatcher(rules: readonly PlainRule[]): (packet: Packet) => number {
  // As numbers: 8192 packets against 10 000 rules are many.
  const words = (address: bigint) => [96n, 64n, 32n, 0n].map((at) => Number((address >> at) & 0xffffffffn))
  const masked = (prefix: Prefix | undefined, ip: 4 | 6) => {
    const rest = BigInt(bitsOf[ip] - (prefix?.length ?? 0))
    const mask = words((((1n << BigInt(bitsOf[ip])) - 1n) >> rest) << rest)
    return words(prefix?.address ?? 0n).map((value, index) => [value, mask[index] ?? 0] as const)
  }
  const prepared = rules.map((rule) => ({
    ...rule,
    to: masked(rule.to, rule.ip),
    from: masked(rule.from, rule.ip),
  }))
  const within = (prefix: readonly (readonly [number, number])[], address: readonly number[]) => {
    for (let i = 3; i >= 0; i--) {
      const [value, mask] = prefix[i] as readonly [number, number]
      if ((((address[i] as number) ^ value) & mask) !== 0) return false
    }
    return true
  }
  return (packet) => {
    const [to, from] = [words(packet.to), words(packet.from)]
    for (let i = 0; i < prepared.length; i++) {
      const rule = prepared[i] as (typeof prepared)[number]
      if (rule.ip !== packet.ip || !within(rule.to, to) || !within(rule.from, from)) continue
      if (rule.protocol !== undefined && rule.protocol !== packet.protocol) continue
      if (rule.dport !== undefined && (packet.dport < rule.dport[0] || packet.dport > rule.dport[1])) continue
      return i + 1
    }
    return 0
  }
}

export function formatAddress(address: bigint, ip: 4 | 6): string {
  const [size, groups, radix, separator] = ip === 4 ? [8n, 4, 10, '.'] : [16n, 8, 16, ':']
  return Array.from({ length: groups }, (_, index) => {
    const group = (address >> (size * BigInt(groups - 1 - index))) & ((1n << size) - 1n)
    return group.toString(radix)
  }).join(separator)
}

const formatPrefix = ({ address, length }: Prefix, ip: 4 | 6) => `${formatAddress(address, ip)}/${length}`

/** As users write it. */
export function asRule({ ip, to, from, protocol, dport, accept }: PlainRule): Rule {
  return {
    action: accept ? 'direct' : 'drop',
    ip,
    ...(to !== undefined && { to: formatPrefix(to, ip) }),
    ...(from !== undefined && { from: formatPrefix(from, ip) }),
    ...(protocol !== undefined && { protocol }),
    ...(dport !== undefined && { dport: dport.join('-') }),
  }
}

const nameOf = (protocol: number) => (protocol === tcp ? 'tcp' : 'udp')

/** As a line for nft -f, in a chain of the inet family. */
export function asNft({ ip, to, from, protocol, dport, accept }: PlainRule): string {
  const family = ip === 4 ? 'ip' : 'ip6'
  return [
    to && `${family} daddr ${formatPrefix(to, ip)}`,
    from && `${family} saddr ${formatPrefix(from, ip)}`,
    !to && !from && `meta nfproto ipv${ip}`,
    protocol !== undefined &&
      (dport ? `${nameOf(protocol)} dport ${dport.join('-')}` : `meta l4proto ${nameOf(protocol)}`),
    accept ? 'accept' : 'drop',
  ]
    .filter(Boolean)
    .join(' ')
}

/** As a line for iptables-restore. */
export function asIptables({ ip, to, from, protocol, dport, accept }: PlainRule): string {
  return [
    '-A OUTPUT',
    to && `-d ${formatPrefix(to, ip)}`,
    from && `-s ${formatPrefix(from, ip)}`,
    protocol !== undefined && `-p ${nameOf(protocol)}`,
    protocol !== undefined && dport && `-m ${nameOf(protocol)} --dport ${dport.join(':')}`,
    `-j ${accept ? 'ACCEPT' : 'DROP'}`,
  ]
    .filter(Boolean)
    .join(' ')
}
