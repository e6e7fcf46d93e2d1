import { Limit } from '@tproxy/bpf'
import type { Ranges, ResolvedRule } from '../resolved.ts'
import { summaryBits, wordBits } from './rows.ts'

/** Fields by which rules can stand apart, the most telling first, and the size of their domains in bits. */
const fields = [
  ['to4', 32],
  ['to6', 128],
  ['from4', 32],
  ['from6', 128],
  ['dport', 16],
  ['sport', 16],
  ['uid', 32],
  ['process', 128],
  ['gid', 32],
  ['mark', 32],
] as const

/** A field with fewer values than one in 2^6 says more than most. */
const narrowBits = 6n

/** Which rule stands at which bit of a row. */
export interface Order {
  /** Rules by bit, as numbers from 0; undefined where none stands. Whole groups, unless it is one word. */
  readonly rules: readonly (number | undefined)[]
  /** Words that one bit of a row's summary stands for; 0: rows of one word, which have none. */
  readonly group: 0 | 1 | typeof Limit.group
}

/**
 * Orders rules so that those stand side by side that the same packets match: the words of a packet's rows are zero together
 * then. Rules that tell packets apart by different fields share no group: what one field of a packet leaves of the ones and
 * another field of the others would look like a match each time. Within a group, the first rule stands lowest.
 */
export function orderRules(rules: readonly ResolvedRule[]): Order {
  if (rules.length <= wordBits) return { rules: rules.map((_, number) => number), group: 0 }
  const keyed = rules.map((rule, number) => ({ number, key: keyOf(rule) }))
  keyed.sort((a, b) => compare(a.key, b.key) || a.number - b.number)
  const kinds = [...Map.groupBy(keyed, ({ key }) => key[0]).values()].map((kind) =>
    kind.map(({ number }) => number),
  )
  const all = kinds.flat()
  const words = inGroups(kinds, 1)
  if (words.length <= summaryBits * wordBits) return { rules: words, group: 1 }
  const groups = inGroups(kinds, Limit.group)
  return { rules: groups.length <= Limit.rules ? groups : inGroups([all], Limit.group), group: Limit.group }
}

/** Each kind fills groups of so many words of its own. */
function inGroups(kinds: readonly (readonly number[])[], words: number): (number | undefined)[] {
  const size = words * wordBits
  return kinds.flatMap((kind) =>
    Array.from({ length: Math.ceil(kind.length / size) }, (_, group) => {
      const members = kind.slice(group * size, (group + 1) * size).sort((a, b) => a - b)
      return Array.from({ length: size }, (_, bit) => members[bit])
    }).flat(),
  )
}

/** The first narrow field, and where each narrow field begins. */
function keyOf(rule: ResolvedRule): bigint[] {
  const lows = fields.map(([field, bits]) => {
    const ranges = rule[field]
    return ranges !== undefined && isNarrow(ranges, BigInt(bits)) ? (ranges[0]?.[0] ?? 0n) : -1n
  })
  return [BigInt(lows.findIndex((low) => low >= 0n)), ...lows]
}

function isNarrow(ranges: Ranges, bits: bigint): boolean {
  const values = ranges.reduce((sum, [low, high]) => sum + high - low + 1n, 0n)
  return values > 0n && values <= 1n << (bits - narrowBits)
}

function compare(a: readonly bigint[], b: readonly bigint[]): number {
  for (const [index, value] of a.entries()) {
    const other = b[index] ?? 0n
    if (value !== other) return value < other ? -1 : 1
  }
  return 0
}
