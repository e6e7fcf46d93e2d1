import type { Ranges } from '../resolved.ts'
import type { Rows, RuleSet } from './rows.ts'

/** From `start` to the next interval's, all values have this row. */
export interface Interval {
  readonly start: bigint
  readonly row: number
}

/**
 * Cuts a field's domain where the set of matching rules changes. `conditions[bit]` are the values the rule with that bit
 * demands, undefined for any. Returns at least one interval, the first from 0; neighbours differ.
 */
export function sweep(
  conditions: readonly (Ranges | undefined)[],
  set: RuleSet,
  rows: Rows,
): { intervals: Interval[]; absent: number } {
  const changes: { at: bigint; bit: number }[] = []
  for (const [bit, ranges] of conditions.entries())
    if (ranges === undefined) set.toggle(bit)
    else for (const [low, high] of ranges) changes.push({ at: low, bit }, { at: high + 1n, bit })
  const absent = rows.intern(set)
  changes.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0))

  const intervals: Interval[] = []
  const add = (start: bigint) => {
    const row = rows.intern(set)
    if (intervals.at(-1)?.row !== row) intervals.push({ start, row })
  }
  if (changes[0]?.at !== 0n) add(0n)
  for (const [index, { at, bit }] of changes.entries()) {
    set.toggle(bit)
    if (changes[index + 1]?.at !== at) add(at)
  }
  return { intervals, absent }
}
