import { TproxyError } from '../errors.ts'
import type { Criteria, OneOf, Rule } from './model.ts'
import { missingCgroup, missingInterface, type Names } from './names.ts'
import type { Conditions, Ranges, ResolvedRule } from './resolved.ts'
import { parseAddresses, parseDscp, parseNumbers, parseProcess, parseProtocol, type Range } from './values.ts'

const bits = (count: number): Range => [0n, (1n << BigInt(count)) - 1n]
const tcp: Ranges = [[6n, 6n]]
/** TCP, UDP, DCCP, SCTP and UDP-Lite. */
const withPorts: Ranges = [6n, 17n, 33n, 132n, 136n].map((number): Range => [number, number])

/**
 * Turns names into numbers and negations into ranges. An interface or cgroup that does not exist matches nothing for now.
 * Throws `E_RULE` for values that are none, for unknown users, and for a redirect to an interface that does not exist.
 */
export function resolveRule(rule: Rule, names: Names): ResolvedRule {
  const both = (field: keyof Criteria, domain: Range, parse: (value: never) => Range | undefined) =>
    resolveField(rule, field, domain, parse)
  const number = (width: number) => (value: string | number) => parseNumbers(value, 2 ** width - 1)
  const id = (lookUp: (name: string) => number | undefined) => (value: string | number) => {
    const range = parseNumbers(value, 2 ** 32 - 1)
    if (range !== undefined || typeof value === 'number') return range
    const known = lookUp(value)
    return known === undefined ? undefined : ([BigInt(known), BigInt(known)] as const)
  }
  const present = (name: string): Range => {
    const ifindex = BigInt(names.interface(name)?.ifindex ?? missingInterface(name))
    return [ifindex, ifindex]
  }

  const conditions: { [Field in keyof Conditions]: Conditions[Field] | undefined } = {
    ...resolveAddresses('to', rule),
    ...resolveAddresses('from', rule),
    protocol: resolveProtocols(rule),
    sport: both('sport', bits(16), number(16)),
    dport: both('dport', bits(16), number(16)),
    interface: both('interface', bits(32), present),
    uid: both(
      'uid',
      bits(32),
      id((name) => names.user(name)),
    ),
    gid: both(
      'gid',
      bits(32),
      id((name) => names.group(name)),
    ),
    mark: both('mark', bits(32), number(32)),
    dscp: both('dscp', bits(6), parseDscp),
    process: both('process', bits(128), parseProcess),
    cgroup: resolveCgroups(rule.cgroup, rule.not?.cgroup, names),
  }
  return {
    ...(Object.fromEntries(
      Object.entries(conditions).filter(([, condition]) => condition !== undefined),
    ) as Conditions),
    ...resolveAction(rule, names),
    log: rule.log === true,
  }
}

/** What a rule asks of one field, with `not` and without; undefined for nothing. */
function resolveField(
  rule: Rule,
  field: keyof Criteria,
  domain: Range,
  parse: (value: never) => Range | undefined,
): Ranges | undefined {
  const [wanted, unwanted] = [rule[field], rule.not?.[field]]
  return intersect(
    wanted === undefined ? undefined : parseAll(field, wanted, parse),
    unwanted === undefined ? undefined : complement(parseAll(field, unwanted, parse), domain),
  )
}

/** The protocols that a rule can match, by what it says of them and by what else it asks for; undefined: all. */
export function resolveProtocols(rule: Rule): Ranges | undefined {
  const asks = (...fields: (keyof Criteria)[]) =>
    fields.some((field) => (rule[field] ?? rule.not?.[field]) !== undefined)
  // Group and name are noted at connect(2) (judge.h); the user of any socket is known, and its cgroup.
  const isTcp = rule.action === 'proxy' || asks('gid', 'process')
  const implied = isTcp ? tcp : asks('sport', 'dport') ? withPorts : undefined
  return intersect(resolveField(rule, 'protocol', bits(8), parseProtocol), implied)
}

function resolveAction({ action }: Rule, names: Names): Pick<ResolvedRule, 'action' | 'redirect'> {
  const redirect = /^redirect(-into)?:(.+)$/.exec(action)
  if (redirect === null) return { action: action as Exclude<ResolvedRule['action'], 'redirect'> }
  const [, into, name = ''] = redirect
  const found = names.interface(name)
  if (found === undefined)
    throw new TproxyError('E_RULE', `${action}: interface ${name} does not exist`, { hint: 'see: ip link' })
  return { action: 'redirect', redirect: { ...found, into: into !== undefined } }
}

/** Conditions on addresses, by family: one that is named only for the other family never matches. */
function resolveAddresses(field: 'to' | 'from', rule: Rule): Conditions {
  // Once for both families: it is what a long list costs most.
  const parse = (given: OneOf<string>) =>
    list(given).map((text) => {
      const parsed = parseAddresses(text)
      if (parsed === undefined) throw invalid(field, text)
      return parsed
    })
  const [wanted, unwanted] = [rule[field], rule.not?.[field]].map((given) =>
    given === undefined ? undefined : parse(given),
  )
  const families = ([4, 6] as const).map((family) => {
    const excluded = (rule.ip !== undefined && rule.ip !== family) || rule.not?.ip === family
    // Once is enough to keep a family out.
    if (excluded && field === 'to') return []
    const of = (given: ReturnType<typeof parse>) =>
      merge(given.flatMap((each) => (each.family === family ? [each.range] : [])))
    return intersect(
      wanted === undefined ? undefined : of(wanted),
      unwanted === undefined ? undefined : complement(of(unwanted), bits(family === 4 ? 32 : 128)),
    )
  })
  const [v4, v6] = families
  return { ...(v4 !== undefined && { [`${field}4`]: v4 }), ...(v6 !== undefined && { [`${field}6`]: v6 }) }
}

function resolveCgroups(
  wanted: OneOf<string> | undefined,
  unwanted: OneOf<string> | undefined,
  names: Names,
): Conditions['cgroup'] {
  if (wanted === undefined && unwanted === undefined) return undefined
  const ids = (given: OneOf<string>) =>
    list(given).map((path) => names.cgroup(path)?.at(-1) ?? missingCgroup(path))
  return {
    ...(wanted !== undefined && { anyOf: ids(wanted) }),
    noneOf: unwanted === undefined ? [] : ids(unwanted),
  }
}

const list = <T>(given: OneOf<T>): readonly T[] =>
  Array.isArray(given) ? (given as readonly T[]) : [given as T]

function parseAll(
  field: string,
  given: OneOf<string | number>,
  parse: (value: never) => Range | undefined,
): Ranges {
  return merge(
    list(given).map((value) => {
      const range = parse(value as never)
      if (range === undefined) throw invalid(field, value)
      return range
    }),
  )
}

function invalid(field: string, value: string | number): TproxyError {
  return new TproxyError('E_RULE', `${field}: "${value}" is none`, { hint: 'unknown name, or out of range' })
}

/** Sorts, and joins what overlaps or touches. */
export function merge(ranges: readonly Range[]): Ranges {
  const sorted = ranges.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
  const merged: [bigint, bigint][] = []
  for (const [low, high] of sorted) {
    const last = merged.at(-1)
    if (last !== undefined && low <= last[1] + 1n) last[1] = high > last[1] ? high : last[1]
    else merged.push([low, high])
  }
  return merged
}

/** What of the domain is not in `ranges`. */
function complement(ranges: Ranges, [first, last]: Range): Ranges {
  const rest: Range[] = []
  let next = first
  for (const [low, high] of ranges) {
    if (low > next) rest.push([next, low - 1n])
    next = high + 1n
  }
  if (next <= last) rest.push([next, last])
  return rest
}

/** What is in both, each of them sorted; undefined is everything. */
function intersect(a: Ranges | undefined, b: Ranges | undefined): Ranges | undefined {
  if (a === undefined || b === undefined) return a ?? b
  const both: Range[] = []
  for (let i = 0, j = 0; ; ) {
    const [one, other] = [a[i], b[j]]
    if (one === undefined || other === undefined) return both
    const [low, high] = [one[0] > other[0] ? one[0] : other[0], one[1] < other[1] ? one[1] : other[1]]
    if (low <= high) both.push([low, high])
    if (one[1] < other[1]) i++
    else j++
  }
}
