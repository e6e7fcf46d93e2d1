import type { Duplex } from 'node:stream'

/**
 * Between the ends of a pair: what `from` sends reaches `to` in portions, one whenever `to` wants more and the valve is open.
 * While it is shut, whoever writes to `from` is held back.
 *
 * node's HTTP server cannot be held back otherwise. A pause of its socket lasts until the end of the message (`readStart`
 * in _http_common.js of 24.21), and each request that a chunk holds becomes objects at once: some 3 KB for 18 bytes.
 */
export class Valve {
  /**
   * The most bytes that pass at a time. What says that it is enough is seen with the next portion already on its way. At 8 KB
   * an upload takes some 5 % more of a processor than in one piece, at 4 KB 20 %.
   */
  portion = 8192
  readonly #to: Duplex
  #held: Buffer = Buffer.alloc(0)
  #taken: (() => void) | undefined
  #wanted = false
  #shut = false

  constructor(from: Duplex, to: Duplex) {
    this.#to = to
    from._write = (chunk: Buffer, _, taken) => {
      this.#held = chunk
      this.#taken = taken
      this.#pass()
    }
    to._read = () => {
      this.#wanted = true
      this.#pass()
    }
  }

  shut(): void {
    this.#shut = true
  }

  open(): void {
    this.#shut = false
    this.#pass()
  }

  #pass(): void {
    if (this.#shut || !this.#wanted) return
    if (this.#held.length > 0) {
      const portion = this.#held.subarray(0, this.portion)
      this.#held = this.#held.subarray(portion.length)
      this.#wanted = false
      this.#to.push(portion)
      return
    }
    // Only now, so that no more than one chunk is on its way.
    const taken = this.#taken
    this.#taken = undefined
    taken?.()
  }
}
