import { createWriteStream, type WriteStream, writeSync } from 'node:fs'
import { isatty } from 'node:tty'

/** What may wait for a reader that does not read; then lines are lost, never connections, and it is told how many. */
const pendingLimit = 1_000_000

/**
 * Lines to standard output or standard error. Not process.stdout and process.stderr: those make a pipe non-blocking for
 * everybody who shares it, the command included, and a write to them stops all connections while the reader sleeps.
 */
export class Output {
  /** Whether to use colour: on a terminal, unless NO_COLOR is set (no-color.org). */
  readonly colour: boolean
  readonly #stream: WriteStream
  readonly #tellLost: (lines: number) => string
  #lost = 0

  /** `tellLost` makes the line that stands where some were lost. */
  constructor(
    fd: 1 | 2,
    tellLost = (lines: number) => `tproxy-run: ${lines} lines were lost here: nobody read them in time`,
  ) {
    this.#tellLost = tellLost
    this.colour = isatty(fd) && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb'
    this.#stream = createWriteStream('', { fd, autoClose: false })
    // A reader that is gone is no reason to end what runs.
    this.#stream.on('error', () => {})
  }

  line(text: string): void {
    if (this.#stream.writableLength >= pendingLimit) {
      this.#lost++
      return
    }
    this.#noteLost()
    this.#stream.write(`${text}\n`)
  }

  /** Resolves when all is written; nothing may be written afterwards. */
  end(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#noteLost()
    if (this.#stream.destroyed) resolve()
    this.#stream.once('close', resolve).end(resolve)
    return promise
  }

  #noteLost(): void {
    if (this.#lost > 0) this.#stream.write(`${this.#tellLost(this.#lost)}\n`)
    this.#lost = 0
  }
}

/** The last word before the process ends. */
export function complain(text: string): void {
  try {
    writeSync(2, `tproxy-run: ${text}\n`)
  } catch {
    // Nobody is there to read it.
  }
}
