import { formatRule, type RuleTables } from '@tproxy/core'

/** More are no news. */
const shown = 10

/** A line for each rule that can never match. */
export function describeShadows({ list, shadowed }: Pick<RuleTables, 'list' | 'shadowed'>): string[] {
  const text = (number: number) => {
    const rule = list.rules[number - 1]
    return rule === undefined ? '' : formatRule(rule)
  }
  const lines = shadowed
    .slice(0, shown)
    .map(
      ({ rule, by }) =>
        `rule ${rule} never matches: rule ${by} covers it (${rule}: ${text(rule)}; ${by}: ${text(by)})`,
    )
  const rest = shadowed.length - lines.length
  return rest === 0 ? lines : [...lines, `${rest} more rules never match`]
}
