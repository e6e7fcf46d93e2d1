import { readdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Program } from '../rig/host.ts'
import { mapEntries, openFiles, residentMb } from '../rig/process.ts'
import type { Setting } from './setting.ts'
import { addressOf } from './ways.ts'

/** Silence after which both sides of a connection are reset; no program here is silent for as long. */
export const idleSeconds = 40

/** What drains has five seconds. */
const stopMs = 20_000
/** A start takes some two. */
const startMs = 20_000

export const fastpaths = ['off', 'to-proxy', 'both'] as const
export type FastpathMode = (typeof fastpaths)[number]

export interface Holding {
  readonly fds: number
  readonly rssMb: number
  /** After the last collection, or since. */
  readonly heapMb: number
  /** Map entries: two for each spliced connection. */
  readonly legs: number
  /** Connections that nobody has accepted yet. */
  readonly flows: number
}

/** Sums over all processes of a soak. */
export interface Tally {
  starts: number
  sessions: number
  readonly ends: Record<string, number>
  readonly carried: Record<string, number>
  readonly relayedBecause: Record<string, number>
  readonly failedBecause: Record<string, number>
  readonly warnings: Record<string, number>
}

const increment = (counts: Record<string, number>, name: string) => {
  counts[name] = (counts[name] ?? 0) + 1
}

const keyOf = (source: { readonly address: string; readonly port: number }) =>
  `IPv${isIP(source.address)} ${source.port}`

/** The tproxy-run under test; one process after the other. */
export class Proxy {
  readonly tally: Tally = {
    starts: 0,
    sessions: 0,
    ends: {},
    carried: {},
    relayedBecause: {},
    failedBecause: {},
    warnings: {},
  }
  /** Sources of connections that a process left to the kernel on purpose, until another connection has the port. */
  readonly #kept = new Set<string>()
  readonly rules: string
  /** When the last process with a fastpath ended. */
  fastpathUntil = 0
  #mode: FastpathMode = 'off'
  /** What a process holds when it has carried nothing but one connection, by its fastpath. */
  readonly #bases = new Map<FastpathMode, { readonly holds: Holding; readonly files: readonly string[] }>()
  /** Whether it is to run. */
  #wanted = false
  #open = new Map<number, string>()
  #adopted = new Set<string>()
  /** What it said last on standard output. */
  #last = ''
  readonly #said = new Map<number, string[]>()
  #heap = 0
  #program: Program | undefined
  readonly #setting: Setting
  readonly #violated: (what: string) => void

  constructor(setting: Setting, violated: (what: string) => void) {
    this.#setting = setting
    this.#violated = violated
    this.rules = `${setting.directory}/rules`
    this.writeRules()
  }

  /** Rules that decide the same whatever more lines there are. */
  writeRules(more: readonly string[] = []): void {
    const outside = [4, 6].map((family) => `direct to ${addressOf('outside', family as 4 | 6)}`)
    // The first that names a cgroup has node open a descriptor for good.
    const absent = 'direct cgroup /no/such'
    writeFileSync(this.rules, [...more, ...outside, absent, ''].join('\n'))
  }

  get pid(): number {
    return this.#program?.pid ?? 0
  }

  /** Sessions that began and have not ended, and adopted connections that last. */
  get open(): number {
    return this.#open.size + this.#adopted.size
  }

  /** What they are. */
  get openSessions(): string[] {
    return [...this.#open.values(), ...[...this.#adopted].map((source) => `adopted, of ${source}`)]
  }

  get mode(): FastpathMode {
    return this.#mode
  }

  /** What a process like this one holds when nothing is open. */
  get base(): Holding | undefined {
    return this.#bases.get(this.#mode)?.holds
  }

  /** Starts and stops one of each kind, while nothing else is open, to see what it holds then. */
  async measure(): Promise<void> {
    for (const mode of fastpaths) {
      await this.start(mode)
      // What the first connection opens stays, such as what watches cgroups, or sockets to upstreams.
      for (const way of ['changed', 'remote'] as const)
        await this.#setting.world.client.sh(`curl -sfo /dev/null http://${addressOf(way, 4)}:8080/stream/1`)
      await sleep(500)
      this.#bases.set(mode, { holds: await this.holds(), files: this.#files() })
      await this.stop('SIGTERM')
    }
  }

  async start(fastpath: FastpathMode): Promise<void> {
    const { world } = this.#setting
    const plugin = fileURLToPath(new URL('./plugin.ts', import.meta.url))
    const program = world.run(
      [
        ...['--json', '--keep', '-i', 'wan0,wan1', '--rules', this.rules, '--plugin', plugin],
        ...['--idle-timeout', `${idleSeconds}s`, '--fastpath', fastpath],
      ],
      { input: '' },
    )
    this.#program = program
    this.#open = new Map()
    this.#adopted = new Set()
    this.#mode = fastpath
    if (fastpath !== 'off') this.fastpathUntil = Number.POSITIVE_INFINITY
    this.tally.starts++
    const ready = Promise.withResolvers<void>()
    for (const stream of [program.child.stdout, program.child.stderr])
      if (stream)
        createInterface({ input: stream }).on('line', (line) => {
          if (stream === program.child.stdout) this.#last = line
          if (line.startsWith('{')) this.#heard(JSON.parse(line), ready.resolve)
          else this.#violated(`tproxy-run said: ${line}`)
          // It keeps all it hears, which is much in an hour.
          program.stdout = ''
          program.stderr = ''
        })
    this.#wanted = true
    void program.exited.then(({ code, signal }) => {
      ready.reject(new Error(`tproxy-run ended: ${code ?? signal}`))
      if (this.#wanted && this.#program === program) this.#violated(`tproxy-run ended: ${code ?? signal}`)
    })
    const deadline = setTimeout(() => ready.reject(new Error('tproxy-run is not ready')), startMs)
    await ready.promise.finally(() => clearTimeout(deadline))
  }

  /** Files that are open and are not when nothing is. */
  get moreFiles(): string[] {
    const base = this.#bases.get(this.#mode)?.files ?? []
    return this.#files().filter((file) => !base.includes(file))
  }

  #files(): string[] {
    const directory = `/proc/${this.pid}/fd`
    return readdirSync(directory).flatMap((fd) => {
      try {
        return `${fd}: ${readlinkSync(`${directory}/${fd}`)}`
      } catch {
        // Closed meanwhile.
        return []
      }
    })
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    this.#wanted = false
    const program = this.#program
    if (program === undefined) return
    const timer = setTimeout(() => {
      this.#violated(`${signal} did not end tproxy-run within ${stopMs / 1000} s`)
      program.kill('SIGKILL')
    }, stopMs)
    const { code, signal: by } = await program.stop(signal)
    clearTimeout(timer)
    if (this.fastpathUntil === Number.POSITIVE_INFINITY) this.fastpathUntil = performance.now()
    if (signal === 'SIGKILL') return
    if (code !== 0) this.#violated(`SIGTERM ended tproxy-run with ${code ?? by}`)
    if (this.open > 0)
      this.#violated(
        `tproxy-run ended without a word of ${this.openSessions.join(', ')}; its last was ${this.#last}`,
      )
  }

  kill(signal: NodeJS.Signals): void {
    this.#program?.kill(signal)
  }

  async holds(): Promise<Holding> {
    const { client } = this.#setting.world
    const program = this.#program
    if (program === undefined) throw new Error('no proxy runs')
    return {
      fds: openFiles(this.pid),
      rssMb: Math.round(residentMb(this.pid)),
      heapMb: Math.round(this.#heap / 1e5) / 10,
      legs: await mapEntries(client, program, 'legs'),
      flows: await mapEntries(client, program, 'flows'),
    }
  }

  /** What tproxy-run last said of connections from a port. */
  saidOf(port: number): string {
    return this.#said.get(port)?.join(' ') ?? 'nothing'
  }

  /** Whether a process that has ended left the connection from this port to the kernel. */
  hasKept(family: 4 | 6, port: number): boolean {
    return this.#kept.has(`IPv${family} ${port}`)
  }

  #remember(event: { source: { port: number } }): void {
    const { port } = event.source
    const said = [...(this.#said.get(port) ?? []), JSON.stringify(event)]
    this.#said.delete(port)
    this.#said.set(port, said.slice(-2))
    const [oldest] = this.#said.keys()
    if (this.#said.size > 5_000 && oldest !== undefined) this.#said.delete(oldest)
  }

  // biome-ignore lint: JSON of ours
  #heard(event: any, ready: () => void): void {
    const { tally } = this
    if (event.source !== undefined) this.#remember(event)
    switch (event.event) {
      case 'ready':
        return ready()
      case 'memory':
        this.#heap = event.heap + event.external
        return
      case 'session-start':
        tally.sessions++
        this.#kept.delete(keyOf(event.source))
        this.#open.set(
          event.id,
          `${event.source.address}:${event.source.port} → ${event.destination.address}:${event.destination.port} since ${event.time}`,
        )
        return
      case 'session-end':
        this.#open.delete(event.id)
        increment(tally.ends, event.end.how)
        increment(tally.carried, event.carried)
        if (event.notSpliced) increment(tally.relayedBecause, event.notSpliced)
        if (event.end.error) increment(tally.failedBecause, event.end.error.replace(/\d+/g, '#'))
        if (event.end.how === 'kept') this.#kept.add(keyOf(event.source))
        return
      case 'adopted':
        this.#adopted.add(keyOf(event.source))
        return
      case 'adopted-end':
        this.#adopted.delete(keyOf(event.source))
        increment(tally.ends, `adopted: ${event.end.how}`)
        return
      case 'lost':
        // We read too slowly. Whether the sessions that it told of have ended, their sockets, files and map entries show.
        this.#open.clear()
        this.#adopted.clear()
        return
      case 'warning':
        return increment(tally.warnings, event.message.replace(/\d+/g, '#'))
    }
  }
}
