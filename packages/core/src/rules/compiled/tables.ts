import { Ref } from '@tproxy/bpf'
import type { Output } from './output.ts'
import type { Interval } from './sweep.ts'
import type { PositionOf, Trie } from './trie.ts'

/**
 * Writes tables of the given widths in bits, one below the other: an entry is a row where all of its values have the same,
 * else the next table.
 */
export function writeTables(
  out: Output,
  intervals: readonly Interval[],
  of: PositionOf,
  widths: readonly number[],
): Trie {
  const starts = intervals.map(({ start }) => Number(start))
  const startOf = (interval: number) => starts[interval] ?? Number.POSITIVE_INFINITY
  /** `from` is the interval that `base` lies in. */
  const fill = (level: number, base: number, from: number): number => {
    const entries = 2 ** (widths[level] ?? 0)
    const span = 2 ** widths.slice(level + 1).reduce((sum, width) => sum + width, 0)
    const at = out.take(entries * 4)
    let current = from
    for (let entry = 0; entry < entries; entry++) {
      const low = base + entry * span
      while (startOf(current + 1) <= low) current++
      const whole = startOf(current + 1) >= low + span
      const ref = whole ? of(intervals[current]?.row ?? 0) : fill(level + 1, low, current)
      out.bytes.writeUInt32LE(ref, at + entry * 4)
    }
    return (at | Ref.node) >>> 0
  }
  return { root: fill(0, 0, 0), depth: widths.length, lowerDepth: 0 }
}

/** IPv4 addresses. */
export const addressTables = (out: Output, intervals: readonly Interval[], of: PositionOf): Trie =>
  writeTables(out, intervals, of, [16, 8, 8])

/** Protocol and port. */
export const serviceTables = (out: Output, intervals: readonly Interval[], of: PositionOf): Trie =>
  writeTables(out, intervals, of, [8, 16])

export const portTable = (out: Output, intervals: readonly Interval[], of: PositionOf): Trie =>
  writeTables(out, intervals, of, [16])
