import { type FSWatcher, watch } from 'node:fs'
import { dirname } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { LogEntry, Steering } from '@tproxy/bpf'
import { interval, map, type Observable, ReplaySubject, Subject, takeUntil } from 'rxjs'
import { endpointOf } from '../endpoint.ts'
import { reason } from '../errors.ts'
import type { ProcessInfo } from '../process.ts'
import { type CompiledRules, compile } from '../rules/compiled/compile.ts'
import { lookUp } from '../rules/compiled/lookup.ts'
import type { Explanation, ReplaceOptions, RuleCount, RuleEvent, Rules, Shadow } from '../rules/control.ts'
import { explain, toQuestion } from '../rules/explain.ts'
import type { Rule, RuleList } from '../rules/model.ts'
import { type Names, systemNames } from '../rules/names.ts'
import { cgroupsOf, readRules, resolveList } from '../rules/read.ts'
import type { Packet } from '../rules/reference.ts'
import type { ResolvedList } from '../rules/resolved.ts'
import { shadowed } from '../rules/shadowed.ts'
import type { Accepted } from '../transport.ts'
import { allCgroups, cgroupRoot, findCgroup } from './cgroup.ts'

/** Connections that an older list decided may still be on their way to us. */
const rememberedLists = 16

/** Changes come in flocks; and whoever makes and removes cgroups without end gets a twentieth of our time at most. */
const settleMs = 20
const restPerWork = 19

/** How long a name of an interface stands for what it was found to be. */
const namesMs = 1_000

/** Where they cannot be looked for, such as without a descriptor left. */
const retryMs = 1_000

/** Of a connection, what rules ask. */
type Judged = Pick<Accepted, 'source' | 'destination' | 'process' | 'interface' | 'mark' | 'dscp'>

interface Options {
  readonly steering: Steering
  readonly list: RuleList
  /** Throws for a list that cannot be put in force for other reasons than its own. */
  readonly check: (list: RuleList) => void
  readonly describe: (entry: LogEntry) => ProcessInfo | undefined
  readonly interfaceName: (ifindex: number) => string | undefined
  readonly warn: (message: string) => void
}

/** The rules that the steering programs follow. */
export class KernelRules implements Rules, Disposable {
  readonly logged: Observable<RuleEvent>
  readonly counted: Observable<readonly RuleCount[]>
  readonly #closed = new ReplaySubject<void>(1)
  /** Emits after lists were replaced with `reset`. */
  readonly resets: Subject<void> = new Subject()
  readonly #options: Options
  readonly #events = new Subject<RuleEvent>()
  readonly #log: { close(): void }
  readonly #lists = new Map<number, RuleList>()
  #list: RuleList
  #compiled: CompiledRules
  #resolved: ResolvedList
  #shadowed: readonly Shadow[] | undefined
  /** What was counted for this list before its names were looked up again. */
  #before: readonly RuleCount[] = []
  /** Interfaces that rules redirect to, and that are gone. */
  #gone: readonly (string | undefined)[] = []
  #watchers: FSWatcher[] = []
  #timer: NodeJS.Timeout | undefined
  #recent: { readonly names: Names; readonly at: number } | undefined
  /** Until when not to look for cgroups again, on the clock of `performance`. */
  #restUntil = 0

  constructor(options: Options) {
    this.#options = options
    this.#list = options.list
    options.check(options.list)
    this.#resolved = resolveList(options.list, systemNames())
    // Begins anew with each process, for connections that an earlier one spliced have numbers of its lists.
    this.#compiled = compile(this.#resolved, Math.floor(Date.now() / 1000))
    this.logged = this.#events.asObservable()
    this.counted = interval(1000).pipe(
      takeUntil(this.#closed),
      map(() => this.counts()),
    )
    this.#log = options.steering.rules.watchLog((entry) => this.#report(entry))
    this.#put(this.#compiled, options.list, false)
    this.#followCgroups(placesNamed(options.list))
  }

  get list(): RuleList {
    return this.#list
  }

  get shadowed(): readonly Shadow[] {
    this.#shadowed ??= shadowed(this.#resolved.rules, this.#compiled)
    return this.#shadowed
  }

  replace(rules: readonly (Rule | string)[], options: ReplaceOptions = {}): void {
    const list = readRules(rules, options.default)
    this.#options.check(list)
    const resolved = resolveList(list, systemNames())
    const places = placesNamed(list)
    this.#change(list, resolved, options.reset === true)
    this.#before = []
    this.#followCgroups(places)
    if (options.reset === true) this.resets.next()
  }

  /** Looks interfaces and cgroups up again: they come and go. */
  refresh(): void {
    try {
      const resolved = resolveList(this.#list, this.#namesNow())
      if (isDeepStrictEqual(resolved, this.#resolved)) return
      const before = this.#compiled
      this.#change(this.#list, resolved, false)
      this.#before = this.#countsOf(before)
    } catch (error) {
      this.#options.warn(`the rules stay as they are: ${reason(error)}`)
    }
  }

  counts(): readonly RuleCount[] {
    return this.#countsOf(this.#compiled)
  }

  #countsOf(compiled: CompiledRules): readonly RuleCount[] {
    return this.#options.steering.rules.counts(compiled).map(({ packets, bytes }, number) => ({
      number,
      packets: packets + (this.#before[number]?.packets ?? 0n),
      bytes: bytes + (this.#before[number]?.bytes ?? 0n),
    }))
  }

  explain(packet: Packet): Explanation {
    return explain(this.#compiled, this.#list, packet, systemNames())
  }

  /** The rule that took a connection; undefined for the default, and for one of a list that is long gone. */
  ruleOf(generation: number, number: number): Rule | undefined {
    return this.#lists.get(generation)?.rules[number - 1]
  }

  /** The rule that would take a connection now, with its action. */
  judge({ source, destination, process, interface: name, mark = 0, dscp = 0 }: Judged): {
    action: string
    via: string | undefined
  } {
    const packet: Packet = {
      ip: destination.family,
      protocol: 6,
      source: source.address,
      destination: destination.address,
      sport: source.port,
      dport: destination.port,
      ...(name !== undefined && { interface: name }),
      mark,
      dscp,
      ...(process && { uid: process.uid, gid: process.gid, process: process.name }),
      ...(process?.cgroup !== undefined && { cgroups: [process.cgroup] }),
    }
    const [rule = 0] = lookUp(this.#compiled, toQuestion(packet, this.#recentNames())).matching
    const { action, via } = this.#list.rules[rule - 1] ?? { action: this.#list.default, via: undefined }
    return { action, via }
  }

  /** Of this moment, or nearly: thousands of connections are judged at once, and to look names up may start a program. */
  #recentNames(): Names {
    const now = performance.now()
    if (this.#recent === undefined || now - this.#recent.at > namesMs)
      this.#recent = { names: systemNames(), at: now }
    return this.#recent.names
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    for (const watcher of this.#watchers) watcher.close()
    this.#log.close()
    this.#closed.next()
    this.#events.complete()
    this.resets.complete()
  }

  /** A redirect to an interface that is gone leads nowhere until it is back; all other rules hold. */
  #namesNow(): Names {
    const names = systemNames()
    const { rules, fallback } = this.#resolved
    const actions = [...this.#list.rules.map(({ action }) => action), this.#list.default]
    const targets = new Map(
      actions.map((action, at) => [targetOf(action), (rules[at] ?? fallback).redirect] as const),
    )
    const gone = [...targets.keys()].filter((name) => name !== undefined && !names.interface(name))
    for (const name of gone)
      if (!this.#gone.includes(name))
        this.#options.warn(`what is redirected to ${name} is lost: that interface is gone`)
    this.#gone = gone
    return { ...names, interface: (name) => names.interface(name) ?? targets.get(name) }
  }

  /** Throws, and has changed nothing, when it cannot be compiled or put in force. */
  #change(list: RuleList, resolved: ResolvedList, again: boolean): void {
    const compiled = compile(resolved, this.#compiled.generation + 1)
    this.#put(compiled, list, again)
    this.#list = list
    this.#resolved = resolved
    this.#compiled = compiled
    this.#shadowed = undefined
    this.#recent = undefined
  }

  #put(compiled: CompiledRules, list: RuleList, again: boolean): void {
    this.#options.steering.rules.put({ ...compiled, again })
    // No turn of the event loop is between: nobody has heard of a connection of this list yet.
    this.#lists.set(compiled.generation, list)
    const [oldest] = this.#lists.keys()
    if (this.#lists.size > rememberedLists && oldest !== undefined) this.#lists.delete(oldest)
  }

  /** A cgroup that a rule names may be made, or made anew with another id, at any time: also before we watch. */
  #followCgroups(places: ReadonlySet<string>): void {
    this.#watchCgroups(places)
    if (this.#watchers.length > 0) this.#soon()
  }

  #watchCgroups(places: ReadonlySet<string>): void {
    for (const watcher of this.#watchers) watcher.close()
    this.#watchers = [...places].flatMap((directory) => {
      try {
        const watcher = watch(directory, { persistent: false }, () => this.#soon())
        // The directory is gone: its own parent is watched from then on.
        return [watcher.on('error', () => this.#soon())]
      } catch {
        return []
      }
    })
  }

  #soon(): void {
    this.#timer ??= setTimeout(
      () => {
        this.#timer = undefined
        const began = performance.now()
        try {
          // What is made between would be missed.
          this.#watchCgroups(placesNamed(this.#list))
        } catch (error) {
          this.#options.warn(`cgroups that rules name are not followed: ${reason(error)}`)
          this.#restUntil = performance.now() + retryMs
          this.#soon()
          return
        }
        this.refresh()
        const ended = performance.now()
        this.#restUntil = ended + (ended - began) * restPerWork
      },
      Math.max(settleMs, this.#restUntil - performance.now()),
    )
  }

  #report(entry: LogEntry): void {
    const { key, rule, generation, length, protocol, ifindex } = entry
    const list = this.#lists.get(generation)
    this.#events.next({
      time: new Date(),
      rule,
      action: list?.rules[rule - 1]?.action ?? list?.default ?? 'proxy',
      protocol,
      source: endpointOf(key.source, key.sourcePort),
      destination: endpointOf(key.destination, key.destinationPort),
      interface: this.#options.interfaceName(ifindex),
      bytes: length,
      process: this.#options.describe(entry),
    })
  }
}

const targetOf = (action: string) => /^redirect(?:-into)?:(.+)$/.exec(action)?.[1]

/** Throws where cgroups cannot be looked for. */
const placesNamed = ({ rules }: RuleList) => new Set(rules.flatMap(cgroupsOf).flatMap(placesOf))

/**
 * Directories in which a cgroup will show, or vanish: the lowest that exists above it; of a systemd unit that is not there, all,
 * for only systemd knows its slice.
 */
function placesOf(path: string): string[] {
  const root = cgroupRoot()
  const found = findCgroup(path)
  if (found !== undefined) return [dirname(`${root}${found}`)]
  if (!path.includes('/')) return allCgroups().map((below) => `${root}${below}`)
  let parent = dirname(path.startsWith('/') ? path : `/${path}`)
  while (parent !== '/' && findCgroup(parent) === undefined) parent = dirname(parent)
  return [`${root}${parent}`]
}
