import { check, tell } from '../check/check.ts'
import { examineRuleList } from '../check/rule-list.ts'
import type { Ending } from '../ending.ts'
import type { Finding } from '../finding.ts'
import { openRules } from '../rules-file.ts'

/** `tproxy-run rules check FILE`. A configuration file is more than its rules, and checked as a whole. */
export function checkRules(form: { file: string; json: boolean }): Promise<Ending> {
  return /\.ya?ml$/i.test(form.file) ? check(form) : tell(form, findInRules)
}

/** All that is wrong with the text of a file of rules, or of no use. */
export function findInRules(text: string): Finding[] {
  const { errors, rules, default: fallback, place } = openRules(text)
  const whole = errors.length === 0
  const found = examineRuleList({ rules, default: fallback, whole, place: (it) => it && place(it) })
  return [...errors, ...found]
}
