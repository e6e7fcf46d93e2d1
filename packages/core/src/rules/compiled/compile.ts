import {
  Action,
  Capacity,
  dimensionSize,
  Field,
  Limit,
  rulesetSize,
  verdictSize,
  writeDimension,
  writeRuleset,
  writeVerdict,
} from '@tproxy/bpf'
import { TproxyError } from '../../errors.ts'
import type { Ranges, RedirectTarget, ResolvedList, ResolvedRule } from '../resolved.ts'
import { orderRules } from './order.ts'
import { Output } from './output.ts'
import { Rows, RuleSet, wordBits } from './rows.ts'
import { type Interval, sweep } from './sweep.ts'
import { addressTables, portTable, serviceTables } from './tables.ts'
import { type PositionOf, type Trie, writeTrie, writeWideTrie } from './trie.ts'

/** Rules as the kernel looks them up; see `struct ruleset` of contract.h. */
export interface CompiledRules {
  /** As many bytes as one of {@link Capacity}. */
  readonly bytes: Buffer
  /** Of these in use. */
  readonly length: number
  readonly generation: number
  readonly rules: number
  /** Of a row. */
  readonly words: number
  readonly refuses: boolean
}

type Write = (out: Output, intervals: readonly Interval[], of: PositionOf) => Trie

interface FieldPlan {
  readonly field: number
  readonly write: Write
  readonly conditions: (rule: ResolvedRule) => Ranges | undefined
  /** Only looked at when some rule does. */
  readonly extended?: true
}

const plans: readonly FieldPlan[] = [
  { field: Field.to4, write: addressTables, conditions: (rule) => rule.to4 },
  { field: Field.to6, write: writeWideTrie, conditions: (rule) => rule.to6 },
  { field: Field.from4, write: addressTables, conditions: (rule) => rule.from4 },
  { field: Field.from6, write: writeWideTrie, conditions: (rule) => rule.from6 },
  { field: Field.service, write: serviceTables, conditions: service },
  { field: Field.sport, write: portTable, conditions: (rule) => rule.sport },
  { field: Field.interface, write: writeTrie, conditions: (rule) => rule.interface, extended: true },
  { field: Field.uid, write: writeTrie, conditions: (rule) => rule.uid, extended: true },
  { field: Field.gid, write: writeTrie, conditions: (rule) => rule.gid, extended: true },
  { field: Field.process, write: writeWideTrie, conditions: (rule) => rule.process, extended: true },
  { field: Field.mark, write: writeTrie, conditions: (rule) => rule.mark, extended: true },
  { field: Field.dscp, write: writeTrie, conditions: (rule) => rule.dscp, extended: true },
]

/** Protocol and destination port as one number, for few rules have one without the other. */
function service({ protocol, dport }: ResolvedRule): Ranges | undefined {
  if (protocol === undefined && dport === undefined) return undefined
  const ranges: [bigint, bigint][] = []
  for (const [first, last] of protocol ?? [[0n, 255n]])
    if (dport === undefined) ranges.push([first << 16n, (last << 16n) | 0xffffn])
    else
      for (let number = first; number <= last; number++)
        for (const [low, high] of dport) ranges.push([(number << 16n) | low, (number << 16n) | high])
  return ranges
}

/** What no packet has. */
const nothing: Ranges = []

/** Kernel memory for the list, at most. */
export const maxRulesBytes: number = Capacity.huge

/**
 * Compiles an ordered list. The first that matches wins, and `fallback` where none does. Throws `E_RULE` for more than
 * 16 384 rules, or when they need more than 64 MB. 0.3 to 0.9 s for 10 000 rules, by machine, while V8 is cold.
 */
export function compile({ rules, fallback, cgroups }: ResolvedList, generation: number): CompiledRules {
  if (rules.length > Limit.rules - 1)
    throw new TproxyError('E_RULE', `${rules.length} rules`, { hint: `at most ${Limit.rules - 1}` })
  const { rules: order, group } = orderRules(rules)
  const ordered = order.map((number) => (number === undefined ? undefined : rules[number]))
  const rows = new Rows(group)
  const emptySet = () => new RuleSet(order.length)

  const swept = plans.map((plan) => {
    const conditions = ordered.map((rule) => (rule === undefined ? nothing : plan.conditions(rule)))
    const used = rules.some((rule) => plan.conditions(rule) !== undefined)
    return { ...plan, used, ...sweep(conditions, emptySet(), rows) }
  })
  const dimensions = [...swept, sweepCgroups(ordered, cgroups, emptySet(), rows)]

  const out = new Output(maxRulesBytes)
  out.take(rulesetSize)
  const verdicts = writeVerdicts(out, [fallback, ...rules], generation)
  const orderAt = out.take(order.length * 2)
  for (const [bit, number] of order.entries())
    if (number !== undefined) out.bytes.writeUInt16LE(number + 1, orderAt + bit * 2)
  const positions = rows.write(out)
  const positionOf: PositionOf = (row) => positions[row] ?? 0
  const header = Buffer.alloc(dimensionSize * Field.max)
  for (const { field, used, write, intervals, absent } of dimensions) {
    const rest = positionOf(absent)
    const trie = used ? write(out, intervals, positionOf) : { root: rest, depth: 0, lowerDepth: 0 }
    writeDimension(header, { ...trie, absent: rest }, field * dimensionSize)
  }
  writeRuleset(out.bytes, {
    extended: dimensions.some(({ extended, used }) => extended && used) ? 1 : 0,
    group,
    order: orderAt,
    verdicts,
    dimensions: header,
  })
  const capacity = [Capacity.small, Capacity.medium, Capacity.large, Capacity.huge].find(
    (size) => size >= out.length,
  )
  const bytes = Buffer.alloc((capacity ?? Capacity.huge) + Capacity.slack)
  out.bytes.copy(bytes, 0, 0, out.length)
  return {
    bytes,
    length: out.length,
    generation,
    rules: rules.length,
    words: Math.ceil(order.length / wordBits),
    refuses: [fallback, ...rules].some(({ action }) => action === 'drop' || action === 'reject'),
  }
}

function writeVerdicts(out: Output, rules: readonly ResolvedRule[], generation: number): number {
  // Read with a mask, hence aligned.
  const at = out.take(rules.length * verdictSize, verdictSize)
  for (const [rule, { action, log, redirect }] of rules.entries())
    writeVerdict(
      out.bytes,
      {
        rule,
        generation,
        action: Action[action],
        log: log ? 1 : 0,
        ifindex: redirect?.ifindex ?? 0,
        into: redirect?.into ? 1 : 0,
        hasMac: redirect?.mac === undefined ? 0 : 1,
        address: addressOf(redirect),
      },
      at + rule * verdictSize,
    )
  return at
}

function addressOf(redirect: RedirectTarget | undefined): Uint8Array {
  const address = new Uint8Array(16)
  address.set((redirect?.into ? redirect.mac : redirect?.gateway) ?? [])
  return address
}

/** A packet is known by the deepest cgroup above it that any rule names; the others above that are known from it. */
function sweepCgroups(
  rules: readonly (ResolvedRule | undefined)[],
  above: ResolvedList['cgroups'],
  set: RuleSet,
  rows: Rows,
): FieldPlan & { used: boolean; intervals: Interval[]; absent: number } {
  const ids = new Set(
    rules.flatMap((rule) => [...(rule?.cgroup?.anyOf ?? []), ...(rule?.cgroup?.noneOf ?? [])]),
  )
  /** Switches to what matches below these cgroups, undefined for no known one; and back when called again. */
  const toggle = (around: ReadonlySet<bigint> | undefined) => {
    for (const [bit, rule] of rules.entries()) {
      if (rule === undefined) continue
      const { cgroup } = rule
      const matches =
        cgroup === undefined ||
        (around !== undefined &&
          (cgroup.anyOf?.some((id) => around.has(id)) ?? true) &&
          !cgroup.noneOf.some((id) => around.has(id)))
      if (matches) set.toggle(bit)
    }
  }
  const rowOf = (around: ReadonlySet<bigint> | undefined) => {
    toggle(around)
    const row = rows.intern(set)
    toggle(around)
    return row
  }
  const none = rowOf(new Set())
  const named = [...ids].map((id) => ({ id, row: rowOf(new Set(above.get(id) ?? [id])) }))
  named.sort((a, b) => (a.id < b.id ? -1 : 1))
  const intervals: Interval[] = [
    { start: 0n, row: rowOf(undefined) },
    { start: 1n, row: -1 },
  ]
  for (const { id, row } of named) {
    if (intervals.at(-1)?.start === id) intervals.pop()
    intervals.push({ start: id, row }, { start: id + 1n, row: -1 })
  }
  return {
    field: Field.cgroup,
    extended: true,
    conditions: () => undefined,
    // Between the named ones there is no row: the cgroup above decides.
    write: (out, all, of) => writeTrie(out, all, (row) => (row < 0 ? 0 : of(row))),
    used: rules.some((rule) => rule?.cgroup !== undefined),
    intervals,
    absent: none,
  }
}
