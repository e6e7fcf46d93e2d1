import { compile } from './compiled/compile.ts'
import { formatRule } from './format.ts'
import type { Action, Criteria, Rule } from './model.ts'
import { type Names, systemNames } from './names.ts'
import { readRules, resolveList } from './read.ts'
import type { ResolvedRule } from './resolved.ts'
import { matchesNothing, shadowed } from './shadowed.ts'
import { parseNumbers } from './values.ts'

/** What has a rule refused on this host, or makes it of no use there. */
export interface RuleFinding {
  /** `error` where the list would be refused. */
  readonly severity: 'error' | 'warning'
  /** From 1; 0 is the default. */
  readonly rule: number
  /** What of the rule it is about, if not all of it: the field, perhaps below `not`, and the value. */
  readonly path: readonly ('not' | 'action' | keyof Criteria)[]
  readonly value: string | undefined
  readonly message: string
  readonly remedy: string | undefined
}

/**
 * All that is wrong with valid rules on this host, now: users, groups and interfaces that it does not know, rules that
 * contradict themselves, and rules that an earlier one covers (see `Rules.shadowed`). Needs no privileges.
 */
export function examineRules(given: readonly Rule[], fallback: Action = 'proxy'): RuleFinding[] {
  const list = readRules(given, fallback)
  const names = remembering(systemNames())
  const unknown = unknownIn(list.rules, fallback, names)
  if (unknown.some(({ severity }) => severity === 'error')) return unknown
  const resolved = resolveList(list, names)
  return [...unknown, ...useless(resolved.rules, list.rules, compile(resolved, 1))]
}

/** Of what {@link examineRules} finds, the names that this host does not know, and nothing that takes time. */
export function examineNames(rules: readonly Rule[], fallback: Action = 'proxy'): RuleFinding[] {
  return unknownIn(rules, fallback, remembering(systemNames()))
}

const unknownIn = (rules: readonly Rule[], fallback: Action, names: Names): RuleFinding[] =>
  [...rules, { action: fallback }].flatMap((rule, index) =>
    unknownNames(rule, names).map((finding) => ({
      ...finding,
      rule: index === rules.length ? 0 : index + 1,
    })),
  )

function useless(
  resolved: readonly ResolvedRule[],
  rules: readonly Rule[],
  compiled: ReturnType<typeof compile>,
): RuleFinding[] {
  const warn = (rule: number, message: string, remedy: string): RuleFinding => ({
    severity: 'warning',
    rule,
    path: [],
    value: undefined,
    message: `rule ${rule} never matches: ${message}`,
    remedy,
  })
  const text = (number: number) => formatRule(rules[number - 1] as Rule)
  return [
    ...resolved.flatMap((rule, index) =>
      matchesNothing(rule)
        ? [warn(index + 1, 'no packet is all that it asks for', 'remove it, or ask for less')]
        : [],
    ),
    ...shadowed(resolved, compiled).map(({ rule, by }) =>
      warn(rule, `rule ${by} covers it (${text(by)})`, `put it before rule ${by}, or remove it`),
    ),
  ]
}

type Unknown = Omit<RuleFinding, 'rule'>

/** Names that stand for nothing here. A rule with an unknown user is refused; an interface or cgroup may yet come. */
function unknownNames(rule: Rule, names: Names): Unknown[] {
  const redirect = /^redirect(?:-into)?:(.+)$/.exec(rule.action)?.[1]
  const target: Unknown[] =
    redirect === undefined || names.interface(redirect) !== undefined
      ? []
      : [
          {
            severity: 'error',
            path: ['action'],
            value: redirect,
            message: `${rule.action}: there is no interface ${redirect}`,
            remedy: 'see: ip link',
          },
        ]
  return [
    ...target,
    ...unknownCriteria(rule, names),
    ...unknownCriteria(rule.not ?? {}, names).map(
      (finding): Unknown => ({ ...finding, path: ['not', ...finding.path] }),
    ),
  ]
}

const id = (text: string) => parseNumbers(text, 0xffff_ffff)
const later = 'it matches nothing until there is one'

function unknownCriteria(criteria: Criteria, names: Names): Unknown[] {
  const look = (
    field: 'uid' | 'gid' | 'interface' | 'cgroup',
    find: (name: string) => unknown,
    say: (name: string) => Pick<Unknown, 'severity' | 'message' | 'remedy'>,
  ) =>
    [criteria[field] ?? []]
      .flat()
      .map(String)
      .filter((value) => find(value) === undefined)
      .map((value): Unknown => ({ ...say(value), path: [field], value }))
  return [
    ...look(
      'uid',
      (name) => id(name) ?? names.user(name),
      (name) => ({ severity: 'error', message: `there is no user ${name}`, remedy: 'see: getent passwd' }),
    ),
    ...look(
      'gid',
      (name) => id(name) ?? names.group(name),
      (name) => ({ severity: 'error', message: `there is no group ${name}`, remedy: 'see: getent group' }),
    ),
    ...look(
      'interface',
      (name) => names.interface(name),
      (name) => ({ severity: 'warning', message: `there is no interface ${name} now`, remedy: later }),
    ),
    ...look(
      'cgroup',
      (name) => names.cgroup(name),
      (name) => ({ severity: 'warning', message: `there is no cgroup or unit ${name} now`, remedy: later }),
    ),
  ]
}

/** A list of thousands names few. */
function remembering(names: Names): Names {
  const known = new Map<string, unknown>()
  const once = <T>(key: string, find: () => T): T => {
    if (!known.has(key)) known.set(key, find())
    return known.get(key) as T
  }
  return {
    interface: (name) => once(`interface ${name}`, () => names.interface(name)),
    user: (name) => once(`user ${name}`, () => names.user(name)),
    group: (name) => once(`group ${name}`, () => names.group(name)),
    cgroup: (path) => once(`cgroup ${path}`, () => names.cgroup(path)),
  }
}
