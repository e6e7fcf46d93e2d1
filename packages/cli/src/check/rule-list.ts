import { type Action, examineRules, type Rule, type RuleFinding } from '@tproxy/core'
import { explain, type Finding, type Place } from '../finding.ts'

/** The rules of a file, and where they stand there. */
export interface PlacedRules {
  readonly rules: readonly Rule[]
  readonly default: Action | undefined
  /** Whether all could be read. Otherwise those that could have not their numbers. */
  readonly whole: boolean
  /** Where that stands which was found about a rule; about all of them: undefined. */
  readonly place: (finding: RuleFinding | undefined) => Place | undefined
}

/** What is wrong with them on this host, or of no use. */
export function examineRuleList({ rules, default: fallback, whole, place }: PlacedRules): Finding[] {
  try {
    return examineRules(rules, fallback)
      .filter(({ path }) => whole || path.length > 0)
      .map((finding) => {
        const { severity, message, remedy } = finding
        return { severity, place: place(finding), message, remedy }
      })
  } catch (error) {
    return [{ severity: 'error', place: place(undefined), ...explain(error) }]
  }
}
