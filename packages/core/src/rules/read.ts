import { reason, TproxyError } from '../errors.ts'
import type { Action, Rule, RuleList } from './model.ts'
import type { Names } from './names.ts'
import { resolveRule } from './resolve.ts'
import type { ResolvedList } from './resolved.ts'
import { contradiction, isAction, parseRule } from './text.ts'

/** Rules and text lines, as a list. Throws `E_RULE` that names the rule. */
export function readRules(given: readonly (Rule | string)[], fallback: Action = 'proxy'): RuleList {
  const word: string = fallback
  if (!isAction(word))
    throw new TproxyError('E_RULE', `default: "${word}" is not an action`, {
      hint: 'such as direct or drop',
    })
  const rules = given.map((rule, index) => {
    if (typeof rule === 'string') return parseRule(rule)
    const action: string = rule.action
    if (!isAction(action)) throw new TproxyError('E_RULE', `rule ${index + 1}: "${action}" is not an action`)
    const problem = contradiction(rule)
    if (problem !== undefined) throw new TproxyError('E_RULE', `rule ${index + 1}: expected ${problem}`)
    return rule
  })
  return { rules, default: fallback }
}

/** Looks up what names stand for, now. Throws `E_RULE` that names the rule. */
export function resolveList({ rules, default: fallback }: RuleList, names: Names): ResolvedList {
  const resolve = (rule: Rule, name: string) => {
    try {
      return resolveRule(rule, names)
    } catch (cause) {
      throw new TproxyError('E_RULE', `${name}: ${reason(cause)}`, { cause })
    }
  }
  const cgroups = new Map<bigint, readonly bigint[]>()
  for (const path of new Set(rules.flatMap(cgroupsOf))) {
    const ids = names.cgroup(path)
    if (ids !== undefined) cgroups.set(ids.at(-1) ?? 0n, ids)
  }
  return {
    rules: rules.map((rule, index) => resolve(rule, `rule ${index + 1}`)),
    fallback: resolve({ action: fallback }, 'default'),
    cgroups,
  }
}

/** The cgroups that a rule names. */
export function cgroupsOf({ cgroup, not }: Rule): string[] {
  return [cgroup ?? [], not?.cgroup ?? []].flat(2)
}
