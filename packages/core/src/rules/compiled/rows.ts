import type { Output } from './output.ts'

/** Of a row. */
export const wordBits = 64
export const summaryBits = 64

/** A set of rules while it is changed, with a hash that changes along. */
export class RuleSet {
  readonly words: Uint32Array
  readonly #random: Int32Array
  hash = 0

  constructor(bits: number) {
    this.words = new Uint32Array(Math.max(1, Math.ceil(bits / wordBits)) * 2)
    // Zobrist's: a random number per bit, XORed. Seeded alike each time, so that a list compiles to the same bytes.
    let seed = 0x9e3779b9
    this.#random = Int32Array.from({ length: bits }, () => {
      seed = (Math.imul(seed ^ (seed >>> 15), 0x2c1b3c6d) + 0x6d2b79f5) | 0
      return seed ^ (seed >>> 12)
    })
  }

  toggle(bit: number): void {
    const word = bit >>> 5
    this.words[word] = (this.words[word] ?? 0) ^ (1 << (bit & 31))
    this.hash ^= this.#random[bit] ?? 0
  }
}

/** A row that is not longer does not lie in two of them. */
const cacheLine = 64

/** All different rows, each once. A row is known by its number, from 0. */
export class Rows {
  readonly #group: number
  readonly #byHash = new Map<number, number[]>()
  readonly #rows: Uint32Array[] = []
  /** Where groups of more than one word are written. */
  readonly #groups = new Map<string, number>()

  /** `group`: words that one bit of a row's summary stands for; 0: rows of one word, without summary. */
  constructor(group: number) {
    this.#group = group
  }

  /** The number of a set's row, which may be another's that is equal. */
  intern(set: RuleSet): number {
    const known = this.#byHash.get(set.hash) ?? []
    const same = known.find((row) => equal(this.#rows[row], set.words))
    if (same !== undefined) return same
    const row = this.#rows.push(set.words.slice()) - 1
    this.#byHash.set(set.hash, [...known, row])
    return row
  }

  /** Writes all rows; returns where each is. */
  write(out: Output): number[] {
    return this.#rows.map((row) => {
      if (this.#group === 0) return writeWords(out, row)
      const groups = this.#groupsOf(row)
      // Of a long list, most groups are alike in many rows: each is written once, and stays in the cache.
      const entries = this.#group === 1 ? undefined : groups.map((group) => this.#shared(out, row, group))
      const at = take(out, 8 + groups.length * (entries === undefined ? 8 : 4))
      for (const [index, group] of groups.entries()) {
        const summary = at + (group >>> 3)
        out.bytes[summary] = (out.bytes[summary] ?? 0) | (1 << (group & 7))
        if (entries === undefined) copy(row, group * 2, 2, out.bytes, at + 8 + index * 8)
        else out.bytes.writeUInt32LE(entries[index] ?? 0, at + 8 + index * 4)
      }
      return at
    })
  }

  /** Those that are not all zero. */
  #groupsOf(row: Uint32Array): number[] {
    const size = this.#group * 2
    const groups: number[] = []
    for (let word = 0; word < row.length; word++) {
      const group = Math.floor(word / size)
      if (row[word] !== 0 && groups.at(-1) !== group) groups.push(group)
    }
    return groups
  }

  #shared(out: Output, row: Uint32Array, group: number): number {
    const size = this.#group * 2
    const words = row.subarray(group * size, (group + 1) * size)
    const key = words.join()
    const known = this.#groups.get(key)
    if (known !== undefined) return known
    const at = take(out, size * 4)
    copy(words, 0, size, out.bytes, at)
    this.#groups.set(key, at)
    return at
  }
}

/** What fits into one cache line does not lie in two. */
function take(out: Output, size: number): number {
  const inLine = (Math.ceil(out.length / 8) * 8) % cacheLine
  return out.take(size, inLine + size > cacheLine && size <= cacheLine ? cacheLine : 8)
}

function writeWords(out: Output, words: Uint32Array): number {
  const at = take(out, words.length * 4)
  copy(words, 0, words.length, out.bytes, at)
  return at
}

function copy(words: Uint32Array, from: number, count: number, into: Buffer, at: number): void {
  for (let word = 0; word < count; word++) into.writeUInt32LE(words[from + word] ?? 0, at + word * 4)
}

function equal(a: Uint32Array | undefined, b: Uint32Array): boolean {
  if (a === undefined) return false
  for (let word = 0; word < b.length; word++) if (a[word] !== b[word]) return false
  return true
}
