import { nodeSize, Ref, writeNode } from '@tproxy/bpf'
import type { Output } from './output.ts'
import type { Interval } from './sweep.ts'

/** The position of a row, by its number. */
export type PositionOf = (row: number) => number

/** From `key` to the next one's, all keys lead to `ref`. */
export interface Bound {
  readonly key: bigint
  readonly ref: number
}

/** Entries per bound, roughly; fewer are smaller, more are fewer levels. */
const spread = 4
const [leastEntries, mostEntries] = [16, 65_536]

/** Of the root for 128 bits: 16 KB, for which lists of up to some hundred rules need a level less (41 ns became 34 at 16 rules). */
const leastRootEntries = 4096

/** What shifts 64 bits at all. A bound may lie behind the last key. */
const mostShift = 63n

/** Where a field's values begin to be looked up; see `struct dimension`. */
export interface Trie {
  readonly root: number
  readonly depth: number
  readonly lowerDepth: number
}

/** Writes the trie of a field whose values have 64 bits at most. */
export function writeTrie(out: Output, intervals: readonly Interval[], of: PositionOf): Trie {
  const bounds = intervals.map(({ start, row }) => ({ key: start, ref: of(row) }))
  const { ref, depth } = writeNodes(out, bounds)
  return { root: ref, depth, lowerDepth: 0 }
}

const half = 64n
const lowerMask = (1n << half) - 1n

/** The same for 128 bits: a trie of the upper halves, which leads to one of the lower halves where these count. */
export function writeWideTrie(out: Output, intervals: readonly Interval[], of: PositionOf): Trie {
  const uppers: Bound[] = []
  const byUpper = Map.groupBy(intervals, ({ start }) => start >> half)
  let lowerDepth = 0
  let before = 0
  for (const [upper, members] of byUpper) {
    const after = of(members.at(-1)?.row ?? 0)
    const lowers = members.map(({ start, row }) => ({ key: start & lowerMask, ref: of(row) }))
    if (lowers[0]?.key !== 0n) lowers.unshift({ key: 0n, ref: before })
    if (lowers.length === 1) uppers.push({ key: upper, ref: after })
    else {
      const lower = writeNodes(out, lowers, leastShiftOf(lowers))
      lowerDepth = Math.max(lowerDepth, lower.depth)
      uppers.push({ key: upper, ref: ((lower.ref & ~Ref.node) | Ref.lower) >>> 0 })
      if (!byUpper.has(upper + 1n) && upper < lowerMask) uppers.push({ key: upper + 1n, ref: after })
    }
    before = after
  }
  const { ref, depth } = writeNodes(out, uppers, leastShiftOf(uppers), leastRootEntries)
  return { root: ref, depth, lowerDepth }
}

/**
 * The kernel subtracts prefixes as signed numbers: of keys of 64 bits one must be shifted out, which takes a level more, or what is
 * far above looks as if it was below. Mostly that is the same, for no rule speaks of either.
 */
const leastShiftOf = (bounds: readonly Bound[]): bigint => (bounds[0]?.ref === bounds.at(-1)?.ref ? 0n : 1n)

/**
 * Writes what distinguishes these bounds, in ascending order: a ref, of a node if there are several, and how many nodes
 * lie on the longest way. What lies below the second bound is the first's. Room for `least` entries is spent on fewer levels. See
 * {@link leastShiftOf}.
 */
export function writeNodes(
  out: Output,
  bounds: readonly Bound[],
  leastShift = 0n,
  least: number = leastEntries,
): { ref: number; depth: number } {
  const [first, second] = bounds
  const last = bounds.at(-1)
  if (first === undefined || last === undefined) throw new RangeError('no bounds')
  if (second === undefined) return { ref: first.ref, depth: 0 }
  const wanted = Math.min(mostEntries, Math.max(least, spread * 2 ** Math.ceil(Math.log2(bounds.length))))
  // From the second bound, where keys begin to differ, to the last: what is outside needs no entries; nor do bits in which
  // none of them differ.
  const differ = bounds.reduce((all, { key }, index) => (index === 0 ? all : all | key), 0n)
  let shift = 0n
  while (shift < mostShift && ((differ >> shift) & 1n) === 0n) shift++
  if (shift < leastShift) shift = leastShift
  while ((last.key >> shift) - (second.key >> shift) >= BigInt(wanted)) shift++
  const base = second.key >> shift
  // The last entry is needed only if its keys do not all belong to the last bound.
  const aligned = last.key === (last.key >> shift) << shift
  const count = Number((last.key >> shift) - base) + (aligned ? 0 : 1)
  const at = out.take(nodeSize + (count + 2) * 4, nodeSize)
  const refs = [first.ref]
  let deepest = 0
  let next = 1
  let before = first
  for (let entry = 0; entry < count; entry++) {
    const low = (base + BigInt(entry)) << shift
    const high = low + (1n << shift)
    const inside: Bound[] = bounds[next]?.key === low ? [] : [before]
    for (let bound = bounds[next]; bound !== undefined && bound.key < high; bound = bounds[++next]) {
      inside.push(bound)
      before = bound
    }
    const { ref, depth } = writeNodes(out, inside)
    refs.push(ref)
    deepest = Math.max(deepest, depth)
  }
  refs.push(last.ref)
  writeNode(out.bytes, { base, shift: Number(shift), count }, at)
  for (const [entry, ref] of refs.entries()) out.bytes.writeUInt32LE(ref, at + nodeSize + entry * 4)
  return { ref: (at | Ref.node) >>> 0, depth: deepest + 1 }
}
