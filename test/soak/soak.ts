import { setTimeout as sleep } from 'node:timers/promises'
import { stateOf } from '../rig/state.ts'
import { type Fault, faults } from './faults.ts'
import { type Kind, kinds } from './programs.ts'
import { type FastpathMode, type Holding, idleSeconds, Proxy } from './proxy.ts'
import { Random } from './random.ts'
import type { KindCount, Report } from './report.ts'
import { Setting } from './setting.ts'
import type { Way } from './ways.ts'

/** Programs at a time. */
const parallel = 6
/** Between two rests, in which everything has to come back to where it was. */
const stretchSeconds = 60
/** The longest that connections without an end of their own may last: by keepalive, retransmission and the idle time. */
const restMs = 60_000
/** After that, nobody sends again what was lost: the kernel's first retransmissions come within seconds. */
const patienceMs = 20_000
/** What a fault did may show a little later: a reset that was lost, a connection that was about to be opened. */
const aftermathMs = 3_000

interface Span {
  readonly fault: Fault
  readonly from: number
  to: number
}

function weighted<T extends { readonly weight: number }>(list: readonly T[], random: Random): T {
  let left = random.next() * list.reduce((sum, { weight }) => sum + weight, 0)
  for (const each of list) {
    left -= each.weight
    if (left < 0) return each
  }
  return list[0] as T
}

/** Mixed programs and random faults for a while, and whether every promise was kept meanwhile. */
export class Soak {
  readonly #setting: Setting
  readonly #random: Random
  readonly #options: { readonly seconds: number; readonly seed: number; readonly say: (line: string) => void }
  readonly #proxy: Proxy
  readonly #kinds: readonly Kind[]
  /** For short soaks, all is shorter. */
  readonly #pace: number
  readonly #programs: Record<string, KindCount> = {}
  readonly #faults: Record<string, number> = {}
  readonly #spans: Span[] = []
  readonly #violations: string[] = []
  readonly #events: string[] = []
  #lastEvents: string[] | undefined
  #highest: Holding = { fds: 0, rssMb: 0, heapMb: 0, legs: 0, flows: 0 }
  /** At the first rest of a process with that fastpath, after which none may hold much more. */
  readonly #settled = new Map<FastpathMode, Holding>()
  readonly #rests = { count: 0, longestMs: 0 }
  /** At the last one. */
  #rested: Holding | undefined
  /** Whether packets were lost since the last rest, and how many connections had one end only when all was to rest. */
  #loses = false
  #halfOpen = 0
  #loadMs = 0
  /** Of leaks, while no process was replaced. */
  #leaks: { readonly starts: number; readonly count: number } | undefined

  /** Throws when it cannot begin. */
  static async run(options: { seconds: number; seed: number; say: (line: string) => void }): Promise<Report> {
    await using setting = await Setting.create()
    return await new Soak(setting, options).#run()
  }

  private constructor(
    setting: Setting,
    options: { readonly seconds: number; readonly seed: number; readonly say: (line: string) => void },
  ) {
    this.#setting = setting
    this.#options = options
    this.#random = new Random(options.seed)
    this.#pace = Math.min(1, options.seconds / stretchSeconds)
    this.#proxy = new Proxy(setting, (what) => this.#violated(what))
    this.#kinds = kinds.filter(
      ({ name }) => (setting.hasSsh || !name.startsWith('ssh')) && (setting.hasWrk || name !== 'wrk'),
    )
  }

  async #run(): Promise<Report> {
    const { client } = this.#setting.world
    const { seconds, seed, say } = this.#options
    const before = await stateOf(client)
    const nothing: Holding = { fds: 0, rssMb: 0, heapMb: 0, legs: 0, flows: 0 }
    let [base, last] = [nothing, nothing]
    try {
      await this.#proxy.measure()
      await this.#proxy.start('off')
      base = await this.#proxy.holds()
      for (let left = seconds; left > 0 && this.#violations.length === 0; left -= stretchSeconds) {
        await this.#load(Math.min(left, stretchSeconds) * 1000)
        if (this.#violations.length > 0) break
        await this.#rest()
        say(this.#progress(seconds - left))
      }
      last = await this.#proxy.holds()
    } catch (error) {
      this.#violated(`the soak cannot go on: ${error instanceof Error ? error.stack : String(error)}`)
    }
    await this.#proxy.stop('SIGTERM')
    const after = await stateOf(client)
    for (const [what, text] of Object.entries(before))
      if (after[what] !== text) this.#violated(`${what} is not as before: ${after[what]}`)
    const bytes = Object.values(this.#programs).reduce((sum, each) => sum + each.bytes, 0)
    return {
      seed,
      seconds,
      programs: this.#programs,
      faults: this.#faults,
      proxy: this.#proxy.tally,
      throughput: bytes / 1000 / this.#loadMs,
      held: { base, highest: this.#highest, last },
      rests: this.#rests,
      halfOpen: this.#halfOpen,
      violations: this.#violations,
      events: this.#lastEvents ?? this.#events,
    }
  }

  #progress(since: number): string {
    const programs = Object.values(this.#programs)
    const sum = (of: (each: KindCount) => number) => programs.reduce((total, each) => total + of(each), 0)
    const { fds, rssMb, heapMb } = this.#rested ?? this.#highest
    return `${since} s on: ${sum((each) => each.runs)} programs, ${sum((each) => each.broken)} broken by faults, ${Math.round(sum((each) => each.bytes) / 1e6)} MB; at rest ${fds} fds, ${rssMb} MB, heap ${heapMb} MB`
  }

  #note(text: string): void {
    this.#events.push(`${new Date().toISOString().slice(11, 23)} ${text}`)
    if (this.#events.length > 80) this.#events.shift()
  }

  #violated(what: string): void {
    this.#note(`VIOLATION ${what}`)
    this.#violations.push(what)
    this.#lastEvents ??= [...this.#events]
    this.#options.say(`violation: ${what}`)
  }

  async #load(ms: number): Promise<void> {
    const began = performance.now()
    const until = began + ms
    // Every third time no packet is lost: then both ends of every connection hear how it ended.
    const isCalm = this.#rests.count % 3 === 2
    const slots = Array.from({ length: parallel }, () => this.#random.fork())
    const random = this.#random.fork()
    const measuring = this.#measure(until)
    await Promise.all([
      ...slots.map((each) => this.#slot(each, until)),
      this.#harm(random, until, isCalm),
      measuring,
    ])
    this.#loadMs += performance.now() - began
  }

  /** One program after the other. */
  async #slot(random: Random, until: number): Promise<void> {
    while (performance.now() < until && this.#violations.length === 0) {
      const kind = weighted(this.#kinds, random)
      const [way, family] = [random.pick(kind.ways), random.pick([4, 6] as const)]
      const from = performance.now()
      const count = (this.#programs[kind.name] ??= { runs: 0, whole: 0, broken: 0, bytes: 0, longestMs: 0 })
      const outcome = await kind.run({ setting: this.#setting, random, way, family, pace: this.#pace })
      const to = performance.now()
      count.runs++
      count.bytes += outcome.bytes
      count.longestMs = Math.max(count.longestMs, Math.round(to - from))
      const what = `${kind.name}, ${way}, IPv${family}, ${((to - from) / 1000).toFixed(1)} s`
      this.#note(`${what}: ${outcome.wrong ?? outcome.broken ?? 'whole'}`)
      if (outcome.wrong !== undefined) this.#violated(`${what}: ${outcome.wrong}`)
      else if (outcome.broken === undefined) count.whole++
      else {
        count.broken++
        if (!this.#explained(way, family, { from, to }, outcome.port))
          this.#violated(`${what}: broke without a fault that explains it: ${outcome.broken}`)
        // It would have been stuck, had the proxy not reset what is idle: and nothing here stands still as long.
        else if (way !== 'outside' && to - from > idleSeconds * 1000)
          this.#violated(`${what}: broke after the idle time: ${outcome.broken}`)
        else if (outcome.isEnd === true && this.#endsByReset(way, from))
          this.#violated(`${what}: a broken connection ended cleanly: ${outcome.broken}`)
      }
    }
  }

  /** Whether what breaks is reset, never ended: no upstream and no fastpath is in between that does otherwise. */
  #endsByReset(way: Way, from: number): boolean {
    return (way === 'direct' || way === 'changed') && this.#proxy.fastpathUntil < from
  }

  #explained(
    way: Way,
    family: 4 | 6,
    { from, to }: { from: number; to: number },
    port: number | undefined,
  ): boolean {
    return this.#spans.some(
      (span) =>
        span.fault.breaks.includes(way) &&
        span.from < to &&
        span.to + aftermathMs > from &&
        !(span.fault.spares === true && port !== undefined && this.#proxy.hasKept(family, port)),
    )
  }

  /** One fault after the other. */
  async #harm(random: Random, until: number, isCalm: boolean): Promise<void> {
    const some = faults.filter(({ loses }) => !isCalm || loses !== true)
    for (;;) {
      const pause = random.between(500, 4000) * Math.max(this.#pace, 0.3)
      if (performance.now() + pause > until || this.#violations.length > 0) return
      await sleep(pause)
      const fault = weighted(some, random)
      this.#faults[fault.name] = (this.#faults[fault.name] ?? 0) + 1
      const span = { fault, from: performance.now(), to: Number.POSITIVE_INFINITY }
      this.#spans.push(span)
      if (this.#spans.length > 100) this.#spans.shift()
      this.#note(`> ${fault.name}`)
      this.#loses ||= fault.loses === true
      await fault.happen({ setting: this.#setting, proxy: this.#proxy, random })
      span.to = performance.now()
      this.#note(`< ${fault.name}`)
    }
  }

  async #measure(until: number): Promise<void> {
    for (; performance.now() < until; await sleep(1000)) {
      const holds = await this.#holds()
      if (holds === undefined) continue
      const names = Object.keys(holds) as (keyof Holding)[]
      this.#highest = Object.fromEntries(
        names.map((name) => [name, Math.max(holds[name], this.#highest[name])]),
      ) as unknown as Holding
      await this.#watchLeaks()
    }
  }

  /** undefined while there is no process. */
  async #holds(): Promise<Holding | undefined> {
    try {
      return await this.#proxy.holds()
    } catch {
      return undefined
    }
  }

  /** Counts only from after the start of a process: what is begun while there is none goes direct, and it says so. */
  async #watchLeaks(): Promise<void> {
    const span = this.#spans.findLast(({ fault }) => fault.breaks.length > 1)
    const [starts, count] = [this.#proxy.tally.starts, await this.#setting.leaked()]
    const calm = span === undefined || performance.now() > span.to + aftermathMs
    if (calm && this.#leaks?.starts === starts && count > this.#leaks.count)
      this.#violated(
        `${count - this.#leaks.count} connections went direct that were to go through an upstream`,
      )
    this.#leaks = calm ? { starts, count } : undefined
  }

  /** Without programs and faults, everything comes back to where it was. */
  async #rest(): Promise<void> {
    const began = performance.now()
    let problem: string | undefined
    do {
      await sleep(250)
      const remains = await this.#remains()
      if (remains !== problem) this.#note(`at rest, ${remains ?? 'nothing is left'}`)
      problem = remains
      if (problem !== undefined && this.#loses && performance.now() > began + patienceMs)
        await this.#endHalfOpen()
    } while (problem !== undefined && performance.now() < began + restMs)
    const took = Math.round(performance.now() - began)
    this.#loses = false
    this.#rests.count++
    this.#rests.longestMs = Math.max(this.#rests.longestMs, took)
    if (problem !== undefined) this.#violated(`after ${restMs / 1000} s of rest ${problem}`)
    // Collected by now.
    await sleep(2500)
    const holds = await this.#proxy.holds()
    this.#rested = holds
    const settled = this.#settled.get(this.#proxy.mode)
    if (settled === undefined) this.#settled.set(this.#proxy.mode, holds)
    else {
      const { heapMb, rssMb } = settled
      if (holds.heapMb > heapMb + 10) this.#violated(`the heap grew from ${heapMb} to ${holds.heapMb} MB`)
      if (holds.rssMb > rssMb + 150) this.#violated(`resident memory grew from ${rssMb} to ${holds.rssMb} MB`)
    }
  }

  /**
   * Ends what is open on the internet when the client has nothing open any more: nobody retransmits, so what was lost was a
   * reset. A direct connection would stay as long.
   */
  async #endHalfOpen(): Promise<void> {
    const { client, internet } = this.#setting.world
    const connected = 'state connected exclude time-wait'
    if (this.#proxy.open > 0 || (await client.sh(`ss -Htn ${connected}`)) !== '') return
    const ended = await internet.sh(`ss -HtnK ${connected}`)
    this.#note(`ended, for nobody is at their other end:\n${ended}`)
    this.#halfOpen += ended.split('\n').length - 1
  }

  /** What has not come back yet. */
  async #remains(): Promise<string | undefined> {
    const { client, internet } = this.#setting.world
    const { base } = this.#proxy
    if (this.#proxy.open > 0)
      return `${this.#proxy.open} sessions are open: ${this.#proxy.openSessions.slice(0, 5).join(', ')}`
    for (const host of [client, internet]) {
      const sockets = await host.sh('ss -Htnp state connected exclude time-wait | sed "s/  */ /g"')
      if (sockets !== '') {
        const queues = await host.sh("ss -Hltn | awk '$2 > 0' | sed 's/  */ /g'")
        const some = sockets.trim().split('\n').slice(0, 5)
        const ports = some.map((line) => Number(/:(\d+)$/.exec(line.split(' ')[4] ?? '')?.[1]))
        const lines = [
          ...some,
          'tproxy-run said:',
          ...ports.map((port) => this.#proxy.saidOf(port)),
          'not accepted:',
          ...queues.trim().split('\n'),
        ]
        return `connections are left on the ${host.name}:\n  ${lines.join('\n  ')}`
      }
    }
    const holds = await this.#proxy.holds()
    if (holds.legs + holds.flows > 0) return `${holds.legs} legs and ${holds.flows} flows are left`
    if (base !== undefined && holds.fds > base.fds)
      return `${holds.fds} files are open, and ${base.fds} at start: ${this.#proxy.moreFiles.join(', ')}`
    return undefined
  }
}
