import { compile } from './compiled/compile.ts'
import type { Rules, Shadow } from './control.ts'
import { explain } from './explain.ts'
import type { Action, Rule } from './model.ts'
import { systemNames } from './names.ts'
import { readRules, resolveList } from './read.ts'
import { shadowed } from './shadowed.ts'

/** What can be said of rules that are not in force. */
export type RuleTables = Pick<Rules, 'list' | 'shadowed' | 'explain'>

/**
 * Compiles rules as for the kernel, and leaves them there: to check a list, and to ask what would become of a packet.
 * Needs no privileges. Throws `E_RULE` that names the rule.
 */
export function compileRules(given: readonly (Rule | string)[], fallback?: Action): RuleTables {
  const list = readRules(given, fallback)
  const names = systemNames()
  const resolved = resolveList(list, names)
  const compiled = compile(resolved, 1)
  let hidden: readonly Shadow[] | undefined
  return {
    list,
    get shadowed() {
      return (hidden ??= shadowed(resolved.rules, compiled))
    },
    explain: (packet) => explain(compiled, list, packet, names),
  }
}
