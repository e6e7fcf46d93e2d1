/** Of a row, and of its summary. */
const wordBits = 64

/** A set of rules while it is changed, with a hash that changes along. */
export class RuleSet {
  readonly words: Uint32Array
  readonly #random: Int32Array
  hash = 0

  constructor(rules: number) {
    this.words = new Uint32Array(Math.max(1, Math.ceil(rules / wordBits)) * 2)
    // Zobrist's: a random number per bit, XORed. Seeded alike each time, so that a list compiles to the same bytes.
    let seed = 0x9e3779b9
    this.#random = Int32Array.from({ length: rules }, () => {
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

/** All different rows, each once, with its summary before it, unless it is one word. A row is known by its number, from 0. */
export class Rows {
  /** Words of a summary. */
  readonly summaries: number
  /** Bytes of one. */
  readonly size: number
  readonly #byHash = new Map<number, number[]>()
  readonly #rows: Uint32Array[] = []

  constructor(rules: number) {
    const words = Math.max(1, Math.ceil(rules / wordBits))
    this.summaries = words === 1 ? 0 : Math.ceil(words / wordBits)
    this.size = (this.summaries + words) * 8
  }

  get count(): number {
    return this.#rows.length
  }

  /** The number of the row that equals this set. */
  intern(set: RuleSet): number {
    const alike = this.#byHash.get(set.hash)
    const known = alike?.find((row) => equal(this.#rows[row] as Uint32Array, set.words))
    if (known !== undefined) return known
    const number = this.#rows.push(set.words.slice()) - 1
    if (alike === undefined) this.#byHash.set(set.hash, [number])
    else alike.push(number)
    return number
  }

  write(into: Buffer, at: number): void {
    for (const [index, row] of this.#rows.entries()) {
      const start = at + index * this.size
      for (let word = 0; word < row.length; word += 2) {
        const [low = 0, high = 0] = [row[word], row[word + 1]]
        if ((low | high) === 0) continue
        if (this.summaries > 0) {
          const bit = word / 2
          const summary = start + (bit >>> 3)
          into[summary] = (into[summary] ?? 0) | (1 << (bit & 7))
        }
        into.writeUInt32LE(low, start + this.summaries * 8 + word * 4)
        into.writeUInt32LE(high, start + this.summaries * 8 + word * 4 + 4)
      }
    }
  }
}

function equal(a: Uint32Array, b: Uint32Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}
