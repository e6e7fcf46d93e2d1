import type { CompiledRules } from './compiled/compile.ts'
import { lookUp, type Question } from './compiled/lookup.ts'
import type { Shadow } from './control.ts'
import type { Conditions, Ranges, ResolvedRule } from './resolved.ts'

const fields = [
  ...(['to4', 'to6', 'from4', 'from6', 'protocol', 'dport', 'sport', 'interface', 'uid', 'gid'] as const),
  ...(['process', 'mark', 'dscp'] as const),
]

/**
 * Rules that can never match because one earlier rule matches whenever they would, with the first such rule. Those that
 * only several earlier ones cover together are not found.
 */
export function shadowed(rules: readonly ResolvedRule[], compiled: CompiledRules): Shadow[] {
  return rules.flatMap((rule, index) => {
    // A rule that covers this one matches the first packet that this one would.
    const corner = firstPacket(rule)
    const candidates = corner === undefined ? [] : lookUp(compiled, corner).matching
    const by = candidates.find((number) => number <= index && covers(rules[number - 1] as ResolvedRule, rule))
    return by === undefined ? [] : [{ rule: index + 1, by }]
  })
}

/** Whether a rule asks for what no packet is, such as IPv4 with an address of IPv6. */
export function matchesNothing(rule: ResolvedRule): boolean {
  return firstPacket(rule) === undefined
}

/** undefined for a rule that matches nothing. */
function firstPacket(rule: ResolvedRule): Question | undefined {
  const first = (ranges: Ranges | undefined) => (ranges === undefined ? undefined : ranges[0]?.[0])
  const ip = rule.to4?.length === 0 || rule.from4?.length === 0 ? 6 : 4
  const [to, from] = ip === 4 ? [rule.to4, rule.from4] : [rule.to6, rule.from6]
  if (fields.some((field) => !/4|6/.test(field) && rule[field]?.length === 0)) return undefined
  if (to?.length === 0 || from?.length === 0) return undefined
  return {
    ip,
    destination: first(to) ?? 0n,
    source: first(from) ?? 0n,
    protocol: Number(first(rule.protocol) ?? 0n),
    dport: Number(first(rule.dport) ?? 0n),
    sport: Number(first(rule.sport) ?? 0n),
    mark: Number(first(rule.mark) ?? 0n),
    dscp: Number(first(rule.dscp) ?? 0n),
    // Where the rule does not ask, one that does covers nothing.
    interface: numberOr(first(rule.interface)),
    uid: numberOr(first(rule.uid)),
    gid: numberOr(first(rule.gid)),
    process: first(rule.process),
    cgroups: rule.cgroup?.anyOf === undefined ? rule.cgroup && [] : rule.cgroup.anyOf.slice(0, 1),
  }
}

const numberOr = (value: bigint | undefined) => (value === undefined ? undefined : Number(value))

function covers(earlier: ResolvedRule, rule: ResolvedRule): boolean {
  for (const field of fields) {
    const wide = earlier[field]
    if (wide !== undefined && !includes(wide, rule[field], field, rule)) return false
  }
  return coversCgroup(earlier.cgroup, rule.cgroup)
}

function includes(
  wide: Ranges,
  narrow: Ranges | undefined,
  field: (typeof fields)[number],
  rule: ResolvedRule,
): boolean {
  // What a rule excludes by family needs no cover.
  if (field.endsWith('4') && (rule.to4?.length === 0 || rule.from4?.length === 0)) return true
  if (field.endsWith('6') && (rule.to6?.length === 0 || rule.from6?.length === 0)) return true
  if (narrow === undefined) return false
  return narrow.every(([low, high]) => wide.some(([from, to]) => from <= low && high <= to))
}

/** Whether cgroups lie below each other is not looked at: only equal conditions cover. */
function coversCgroup(wide: Conditions['cgroup'], narrow: Conditions['cgroup']): boolean {
  if (wide === undefined) return true
  if (narrow === undefined) return false
  const anyOf = wide.anyOf === undefined || (narrow.anyOf?.every((id) => wide.anyOf?.includes(id)) ?? false)
  return anyOf && wide.noneOf.every((id) => narrow.noneOf.includes(id))
}
