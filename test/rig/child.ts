import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process'
import { createInterface } from 'node:readline'

/** How a program ended, and all it said. */
export interface Outcome {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** A program that runs in a {@link Host}. */
export class Child implements AsyncDisposable {
  readonly pid: number
  /** What it has printed so far, line by line. */
  readonly lines: string[] = []
  stderr = ''
  /** Never rejects. */
  readonly exited: Promise<Outcome>
  readonly #process: ChildProcess
  readonly #watchers = new Set<() => void>()
  #running = true

  constructor(command: string, args: readonly string[], options: { cwd?: string; env?: NodeJS.ProcessEnv }) {
    const stdio: StdioOptions = ['pipe', 'pipe', 'pipe']
    this.#process = spawn(command, args, { ...options, stdio })
    this.pid = this.#process.pid ?? 0
    // It may have ended before it read what we wrote.
    this.#process.stdin?.on('error', () => {})
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    const { promise, resolve } = Promise.withResolvers<Outcome>()
    this.exited = promise
    const end = (code: number | null, signal: NodeJS.Signals | null) => {
      this.#running = false
      this.#notify()
      resolve({ code, signal, stdout: this.lines.join('\n'), stderr: this.stderr })
    }
    this.#process.once('error', (error) => {
      this.stderr += error.message
      end(null, null)
    })
    this.#process.once('close', end)
    if (this.#process.stdout === null) return
    createInterface({ input: this.#process.stdout }).on('line', (line) => {
      this.lines.push(line)
      this.#notify()
    })
  }

  /** Whether it has not ended yet. */
  get running(): boolean {
    return this.#running
  }

  write(text: string): void {
    this.#process.stdin?.write(text)
  }

  endInput(text = ''): void {
    this.#process.stdin?.end(text)
  }

  kill(signal: NodeJS.Signals = 'SIGTERM'): void {
    if (this.#running) this.#process.kill(signal)
  }

  /** The first line, of those already printed too, for which `find` has an answer. Throws when there is none in time. */
  async until<T>(find: RegExp | ((line: string) => T | undefined), timeoutMs = 10_000): Promise<T> {
    const test = find instanceof RegExp ? (line: string) => (find.test(line) ? (line as T) : undefined) : find
    let seen = 0
    const look = () => {
      for (; seen < this.lines.length; seen++) {
        const found = test(this.lines[seen] ?? '')
        if (found !== undefined) return found
      }
      return undefined
    }
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const fail = (what: string) => {
      const said = this.lines.slice(-5).join('\n')
      reject(new Error(`${what}, waiting for ${find}; it last said:\n${said}\n${this.stderr}`))
    }
    const check = () => {
      const found = look()
      if (found !== undefined) resolve(found)
      else if (!this.#running) fail(`process ${this.pid} has ended`)
    }
    const timer = setTimeout(() => fail(`nothing for ${timeoutMs} ms`), timeoutMs)
    this.#watchers.add(check)
    check()
    try {
      return await promise
    } finally {
      clearTimeout(timer)
      this.#watchers.delete(check)
    }
  }

  /** Kills it, if it still runs, and waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.kill('SIGKILL')
    await this.exited
  }

  #notify(): void {
    for (const watcher of this.#watchers) watcher()
  }
}
