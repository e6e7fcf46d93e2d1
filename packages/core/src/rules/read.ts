import { reason, TproxyError } from '../errors.ts'
import { criteria } from './fields.ts'
import { meantAction } from './meant.ts'
import type { Action, Rule, RuleList } from './model.ts'
import type { Names } from './names.ts'
import { nearest } from './nearest.ts'
import { resolveRule } from './resolve.ts'
import type { ResolvedList } from './resolved.ts'
import { contradiction, isAction, parseRule } from './text.ts'

/** Rules and text lines, as a list. Throws `E_RULE` that names the rule. */
export function readRules(given: readonly (Rule | string)[], fallback: Action = 'proxy'): RuleList {
  const word: string = fallback
  if (!isAction(word)) throw notAnAction('default', word)
  if (!Array.isArray(given))
    throw new TproxyError('E_RULE', 'rules: expected a list', { hint: "such as ['drop tcp dport 25']" })
  const rules = given.map((rule, index) => {
    if (typeof rule === 'string') return parseRule(rule)
    const name = `rule ${index + 1}`
    if (!isMapping(rule))
      throw new TproxyError('E_RULE', `${name}: expected a text, or a mapping with an action`)
    const action: string = rule.action
    if (!isAction(action)) throw notAnAction(name, action)
    checkKeys(rule, ['action', 'not', 'via', 'log', ...criteria], name)
    if (rule.not !== undefined) {
      if (!isMapping(rule.not)) throw new TproxyError('E_RULE', `${name}: not: expected a mapping`)
      checkKeys(rule.not, criteria, `${name}: not`)
    }
    const problem = contradiction(rule)
    if (problem !== undefined) throw new TproxyError('E_RULE', `${name}: ${problem.message}`)
    return rule
  })
  return { rules, default: fallback }
}

function notAnAction(name: string, word: string): TproxyError {
  const meant = meantAction(String(word))
  return new TproxyError('E_RULE', `${name}: "${word}" is not an action`, {
    hint: meant === undefined ? 'such as direct or drop' : `did you mean ${meant}?`,
  })
}

const isMapping = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value)

/** A key that is not known, and hence not looked at, would leave a rule that matches more than is meant. */
function checkKeys(mapping: object, known: readonly string[], name: string): void {
  const unknown = Object.keys(mapping).find((key) => !known.includes(key))
  if (unknown === undefined) return
  const meant = nearest(unknown, known)
  throw new TproxyError('E_RULE', `${name}: unknown key ${unknown}`, {
    hint: meant === undefined ? `one of ${known.join(', ')}` : `did you mean ${meant}?`,
  })
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
