import type { Ranges, ResolvedRule } from '../resolved.ts'

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

/**
 * Which rule stands at which bit of a row: rules that the same packets match side by side, so that the words of a packet's
 * rows are zero together. Within a word of 64, the first rule stands lowest. Returns numbers from 0.
 */
export function orderRules(rules: readonly ResolvedRule[]): number[] {
  const keyed = rules.map((rule, number) => ({ number, key: keyOf(rule) }))
  keyed.sort((a, b) => compare(a.key, b.key) || a.number - b.number)
  const order = keyed.map(({ number }) => number)
  for (let word = 0; word < order.length; word += 64) {
    const sorted = order.slice(word, word + 64).sort((a, b) => a - b)
    order.splice(word, sorted.length, ...sorted)
  }
  return order
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
