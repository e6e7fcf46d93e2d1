import { Ref } from '@tproxy/bpf'
import type { Output } from './output.ts'
import type { Interval } from './sweep.ts'
import { type PositionOf, type Trie, writeNodes } from './trie.ts'

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
  return { root: fill(0, 0, 0), depth: 0, lowerDepth: 0 }
}

/** Of 256 entries, below the one of 65 536: more would not stay in the cache. */
const mostTables = 64

/** IPv4 addresses. */
export function addressTables(out: Output, intervals: readonly Interval[], of: PositionOf): Trie {
  const divided = new Set(
    intervals.filter(({ start }) => (start & 0xffffn) !== 0n).map(({ start }) => start >> 16n),
  )
  return divided.size > mostTables
    ? writeHalves(out, intervals, of)
    : writeTables(out, intervals, of, [16, 8, 8])
}

/** A table of the upper halves of 32 bits, and nodes for the lower halves where these count. */
function writeHalves(out: Output, intervals: readonly Interval[], of: PositionOf): Trie {
  const at = out.take(65_536 * 4)
  const byUpper = Map.groupBy(intervals, ({ start }) => Number(start >> 16n))
  let depth = 0
  let before = 0
  for (let upper = 0; upper < 65_536; upper++) {
    const bounds = (byUpper.get(upper) ?? []).map(({ start, row }) => ({
      key: start & 0xffffn,
      ref: of(row),
    }))
    if (bounds[0]?.key !== 0n) bounds.unshift({ key: 0n, ref: before })
    before = bounds.at(-1)?.ref ?? before
    const below = writeNodes(out, bounds)
    depth = Math.max(depth, below.depth)
    out.bytes.writeUInt32LE(below.ref, at + upper * 4)
  }
  return { root: (at | Ref.node) >>> 0, depth, lowerDepth: 0 }
}

/** Protocol and port. */
export const serviceTables = (out: Output, intervals: readonly Interval[], of: PositionOf): Trie =>
  writeTables(out, intervals, of, [8, 16])

export const portTable = (out: Output, intervals: readonly Interval[], of: PositionOf): Trie =>
  writeTables(out, intervals, of, [16])
