import { write, writeSync } from 'node:fs'
import { Writable } from 'node:stream'
import { isatty } from 'node:tty'

/** What may wait for a reader that does not read; then lines are lost, never connections, and it is told how many. */
const pendingLimit = 1_000_000

/** How long to wait before a pipe is tried again that took nothing. */
const fullMs = 10

/**
 * Lines to standard output or standard error. Not process.stdout and process.stderr: those make a pipe non-blocking for
 * everybody who shares it, the command included, and a write to them stops all connections while the reader sleeps.
 */
export class Output {
  /** Whether to use colour: on a terminal, unless NO_COLOR is set (no-color.org). */
  readonly colour: boolean
  readonly #stream: Writable
  readonly #tellLost: (lines: number) => string
  #lost = 0

  /** `tellLost` makes the line that stands where some were lost. */
  constructor(
    fd: 1 | 2,
    tellLost = (lines: number) => `tproxy-run: ${lines} lines were lost here: nobody read them in time`,
  ) {
    this.#tellLost = tellLost
    this.colour = isatty(fd) && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb'
    this.#stream = toDescriptor(fd)
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

/**
 * Whoever shares a pipe can make it non-blocking, as each Node program does with the ones it was started with. Not
 * fs.createWriteStream: it gives up on a full one after six tries within a millisecond, and drops all that waits.
 */
function toDescriptor(fd: number): Writable {
  const writeAll = (bytes: Buffer, done: (error?: Error | null) => void): void =>
    write(fd, bytes, (error, written) => {
      if (error?.code === 'EAGAIN') setTimeout(writeAll, fullMs, bytes, done)
      else if (error !== null || written === bytes.length) done(error)
      else writeAll(bytes.subarray(written), done)
    })
  return new Writable({
    write: (bytes, _encoding, done) => writeAll(bytes, done),
    writev: (pieces, done) => writeAll(Buffer.concat(pieces.map(({ chunk }) => chunk)), done),
  })
}

/** The last word before the process ends. */
export function complain(text: string): void {
  try {
    writeSync(2, `tproxy-run: ${text}\n`)
  } catch {
    // Nobody is there to read it.
  }
}
