import { TproxyError } from '../../errors.ts'

/** The bytes of a compiled list, as they grow. */
export class Output {
  bytes: Buffer = Buffer.alloc(1 << 16)
  /** In bytes. */
  length = 0
  readonly #limit: number

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Position of `size` new bytes, all zero, at a multiple of `align`. Throws `E_RULE` beyond the limit. */
  take(size: number, align = 8): number {
    const at = Math.ceil(this.length / align) * align
    this.length = at + size
    if (this.length > this.#limit)
      throw new TproxyError('E_RULE', `the rules need more than ${this.#limit >> 20} MB in the kernel`, {
        hint: 'fewer rules, or rules that share their addresses',
      })
    if (this.length > this.bytes.length) {
      const larger = Buffer.alloc(Math.min(this.#limit, 2 ** Math.ceil(Math.log2(this.length))))
      this.bytes.copy(larger)
      this.bytes = larger
    }
    return at
  }
}
