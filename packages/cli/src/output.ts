import { fstatSync, write, writeSync } from 'node:fs'
import { Writable } from 'node:stream'
import { isatty } from 'node:tty'

/** What may wait for a reader that does not read; then lines are lost, never connections, and it is told how many. */
const pendingLimit = 1_000_000

/** How long to wait before a pipe is tried again that took nothing. */
const fullMs = 10

/** Lines to standard output or standard error. No reader that sleeps holds up connections, or has us take more and more memory. */
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
    // It reads again, and nothing more may come for long.
    this.#stream.on('drain', () => this.#noteLost())
  }

  line(text: string): void {
    if (this.#stream.writableLength >= pendingLimit) {
      this.#lost++
      return
    }
    this.#noteLost()
    this.#stream.write(`${text}\n`)
  }

  /** Once nobody is there to read it, which is found out by what is written then. */
  whenUnread(act: () => void): void {
    this.#stream.once('error', act)
  }

  /** Resolves when all is written; nothing may be written afterwards. */
  end(): Promise<void> {
    this.#noteLost()
    return end(this.#stream)
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
  const stream = new Writable({
    write: (bytes, _encoding, done) => writeAll(bytes, done),
    writev: (pieces, done) => writeAll(Buffer.concat(pieces.map(({ chunk }) => chunk)), done),
  })
  // A reader that is gone is no reason to end what runs.
  return stream.on('error', () => {})
}

/** Resolves when all is written, or nobody is there to read it. */
function end(stream: Writable): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  if (stream.destroyed) resolve()
  stream.once('close', resolve).end(resolve)
  return promise
}

/**
 * Has process.stdout and process.stderr leave pipes as they are. Node's own make them non-blocking for the command, too, as soon as
 * anybody asks for them: a plugin that logs, and each pipe() of a stream, which compares with both. Disposing of it waits until
 * all is written.
 */
export function leavePipesBlocking(): AsyncDisposable {
  const streams: Writable[] = []
  for (const [name, fd] of [['stdout', 1] as const, ['stderr', 2] as const]) {
    const kind = fstatSync(fd)
    if (!kind.isFIFO() && !kind.isSocket()) continue
    const stream = Object.assign(toDescriptor(fd), { fd })
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => stream })
    streams.push(stream)
  }
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(streams.map(end))
    },
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
