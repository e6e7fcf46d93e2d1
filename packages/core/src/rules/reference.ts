import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'
import type { Action, Criteria, OneOf, Rule, RuleList } from './model.ts'
import { codePoints, protocols } from './values.ts'

/** A packet as a rule sees it. What is not known is undefined. */
export interface Packet {
  readonly ip: 4 | 6
  readonly protocol: number
  readonly source: string
  readonly destination: string
  /** Of protocols that have ports. */
  readonly sport?: number
  readonly dport?: number
  readonly interface?: string
  readonly mark: number
  readonly dscp: number
  readonly uid?: number
  readonly gid?: number
  readonly process?: string
  /** Its cgroup and those above it, by path. */
  readonly cgroups?: readonly string[]
}

/**
 * The rules as one would read them: one after the other, field by field. Slow and plain on purpose: what is compiled for
 * the kernel is tested against it.
 */
export function matchRules(
  { rules, default: fallback }: RuleList,
  packet: Packet,
): { rule: number; action: Action } {
  const index = rules.findIndex((rule) => matches(rule, packet))
  const action = rules[index]?.action ?? fallback
  return { rule: index + 1, action: action === 'proxy' && packet.protocol !== 6 ? 'direct' : action }
}

const known: readonly (keyof Criteria)[] = [
  ...([
    'protocol',
    'ip',
    'from',
    'to',
    'sport',
    'dport',
    'interface',
    'uid',
    'gid',
    'cgroup',
    'process',
  ] as const),
  ...(['mark', 'dscp'] as const),
]

/** Noted when a program connects, which the kernel tells us of for TCP. */
const ofConnections = ['gid', 'process'] as const

function matches(rule: Rule, packet: Packet): boolean {
  const isForTcp =
    rule.action === 'proxy' || ofConnections.some((field) => (rule[field] ?? rule.not?.[field]) !== undefined)
  if (isForTcp && packet.protocol !== 6) return false
  return known.every((field) => {
    const [wanted, unwanted] = [rule[field], rule.not?.[field]]
    if (wanted === undefined && unwanted === undefined) return true
    const found = (given: OneOf<string | number>) =>
      [given].flat().some((value) => holds(field, value, packet))
    if (!isKnown(field, packet)) return false
    return (wanted === undefined || found(wanted)) && (unwanted === undefined || !found(unwanted))
  })
}

function isKnown(field: keyof Criteria, packet: Packet): boolean {
  if (field === 'cgroup') return packet.cgroups !== undefined
  if (field === 'from' || field === 'to' || field === 'ip') return true
  return packet[field] !== undefined
}

function holds(field: keyof Criteria, value: string | number, packet: Packet): boolean {
  switch (field) {
    case 'ip':
      return packet.ip === value
    case 'protocol':
      return inNumbers(protocols[value] ?? value, packet.protocol)
    case 'from':
      return inAddresses(String(value), packet.source)
    case 'to':
      return inAddresses(String(value), packet.destination)
    case 'dscp':
      return inNumbers(codePoints[value] ?? value, packet.dscp)
    case 'interface':
    case 'process':
      return packet[field] === value
    case 'cgroup':
      return packet.cgroups?.includes(String(value)) ?? false
    default:
      return inNumbers(value, packet[field] ?? -1)
  }
}

function inNumbers(value: string | number, number: number): boolean {
  const [low, high = low] = String(value).split('-').map(Number)
  return low !== undefined && high !== undefined && low <= number && number <= high
}

function inAddresses(value: string, address: string): boolean {
  const packet = ipaddr.process(address)
  if (value.includes('-')) {
    const [low, high] = value.split('-').map((text) => ipaddr.process(text))
    if (low?.kind() !== packet.kind() || high === undefined) return false
    const order = (bytes: ipaddr.IPv4 | ipaddr.IPv6) => Buffer.from(bytes.toByteArray())
    return Buffer.compare(order(low), order(packet)) <= 0 && Buffer.compare(order(packet), order(high)) <= 0
  }
  if (isIP(value) !== 0) return packet.toString() === ipaddr.process(value).toString()
  const [network, length] = ipaddr.parseCIDR(value)
  return network.kind() === packet.kind() && packet.match([network, length] as [ipaddr.IPv4, number])
}
