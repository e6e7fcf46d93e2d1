import type { CompiledRules } from './compiled/compile.ts'
import { type FieldName, lookUp, type Question } from './compiled/lookup.ts'
import type { Explanation } from './control.ts'
import type { Rule, RuleList } from './model.ts'
import { missingInterface, type Names } from './names.ts'
import type { Packet } from './reference.ts'
import { resolveProtocols } from './resolve.ts'
import { parseAddresses, processNumber } from './values.ts'

/** Looks a packet up in compiled rules, and says why no earlier one wins. */
export function explain(compiled: CompiledRules, list: RuleList, packet: Packet, names: Names): Explanation {
  const { matching, against } = lookUp(compiled, toQuestion(packet, names))
  const rule = matching.find((number) => portsLacking(list.rules[number - 1], packet).length === 0) ?? 0
  const numbers = Array.from({ length: rule === 0 ? list.rules.length : rule }, (_, index) => index + 1)
  const action = list.rules[rule - 1]?.action ?? list.default
  return {
    rule,
    // Which the default is for: no rule with proxy matches another protocol.
    action: action === 'proxy' && packet.protocol !== tcp ? 'direct' : action,
    against: numbers.map((number) => ({
      rule: number,
      fields: speaking(against(number), list.rules[number - 1], packet),
    })),
  }
}

const tcp = 6

/** Ports that a rule asks for and that are not given. The tables know no packet of TCP without ports. */
function portsLacking(rule: Rule | undefined, packet: Packet): ('sport' | 'dport')[] {
  return (['dport', 'sport'] as const).filter(
    (port) => packet[port] === undefined && (rule?.[port] ?? rule?.not?.[port]) !== undefined,
  )
}

/** What speaks against a rule, by the tables and by what is not given. Without a port, these cannot tell it from the protocol. */
function speaking(fields: readonly FieldName[], rule: Rule | undefined, packet: Packet): FieldName[] {
  const known =
    packet.dport === undefined
      ? fields.flatMap((field) =>
          field !== 'protocol or dport' ? field : fitsProtocol(rule, packet) ? [] : 'protocol',
        )
      : fields
  return [...new Set([...known, ...portsLacking(rule, packet)])]
}

function fitsProtocol(rule: Rule | undefined, { protocol }: Packet): boolean {
  const ranges = rule === undefined ? undefined : resolveProtocols(rule)
  return ranges?.some(([low, high]) => low <= protocol && protocol <= high) ?? true
}

/** A packet as the kernel would ask about it, now. */
export function toQuestion(packet: Packet, names: Names): Question {
  const deepest = packet.cgroups?.toSorted((a, b) => b.length - a.length)[0]
  return {
    ip: packet.ip,
    source: parseAddresses(packet.source)?.range[0] ?? 0n,
    destination: parseAddresses(packet.destination)?.range[0] ?? 0n,
    protocol: packet.protocol,
    sport: packet.sport ?? 0,
    dport: packet.dport ?? 0,
    interface:
      packet.interface === undefined
        ? undefined
        : (names.interface(packet.interface)?.ifindex ?? missingInterface(packet.interface)),
    mark: packet.mark,
    dscp: packet.dscp,
    uid: packet.uid,
    gid: packet.gid,
    process: packet.process === undefined ? undefined : processNumber(packet.process),
    cgroups: deepest === undefined ? undefined : names.cgroup(deepest),
  }
}
