/** In so many parts the time is cut: what waits for the same part is done with in one go. */
const parts = 8

/** Does something with each of many things, once it has waited for so long, and an eighth more at most: one timer for all. */
export class Later<T> {
  readonly #partMs: number
  readonly #act: (thing: T) => void
  /** By the part of the time in which they were added, the last first. */
  #waiting: T[][] = [[]]
  #timer: NodeJS.Timeout | undefined

  constructor(afterMs: number, act: (thing: T) => void) {
    this.#partMs = afterMs / parts
    this.#act = act
  }

  add(thing: T): void {
    this.#waiting[0]?.push(thing)
    this.#timer ??= this.#wait()
  }

  /** Does not wait any longer. */
  now(): void {
    const all = this.#waiting.toReversed().flat()
    this.cancel()
    for (const thing of all) this.#act(thing)
  }

  cancel(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#waiting = [[]]
  }

  /** Nothing that waits is a reason for the process to go on. */
  #wait(): NodeJS.Timeout {
    return setTimeout(() => {
      const due = this.#waiting.length > parts ? this.#waiting.pop() : undefined
      this.#waiting.unshift([])
      this.#timer = this.#waiting.some(({ length }) => length > 0) ? this.#wait() : undefined
      for (const thing of due ?? []) this.#act(thing)
    }, this.#partMs).unref()
  }
}
