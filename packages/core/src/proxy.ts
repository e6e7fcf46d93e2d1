import type { Observable } from 'rxjs'
import { checkDecisions, checkInterceptOptions, checkProxyOptions } from './check-options.ts'
import type { Connection } from './connection.ts'
import { formatEndpoint } from './endpoint.ts'
import { reason, TproxyError } from './errors.ts'
import { Interception } from './interception.ts'
import { type FastpathState, limits } from './options.ts'
import { ask, closePlugins, type Plugin } from './plugin.ts'
import type { Rules } from './rules/control.ts'
import type { RuleList } from './rules/model.ts'
import type { Session } from './session.ts'
import type { InterceptOptions } from './tc/intercept-options.ts'
import { openTransport } from './tc/open.ts'
import type { TraceStep, TraceTarget } from './trace.ts'
import type { Adopted, Memories, Transport } from './transport.ts'
import { direct, drop, type Verdict } from './verdict.ts'

const backstopMs = 1_000

/** Options of {@link TransparentProxy.open}. */
export interface ProxyOptions extends InterceptOptions {
  /** Asked in order; the first verdict wins. */
  readonly plugins?: readonly Plugin[]
  /** What applies when no plugin answers. Default: `direct()`. */
  readonly default?: Verdict
  /**
   * Whether upstreams are told the host name that a program speaks of, in place of the address (see `Destination`); an
   * upstream's own `names` overrides it. Default: false. A name is a claim: with it a program reaches whatever the upstream
   * resolves it to, on the same port, whatever address the rules saw.
   */
  readonly names?: boolean
  /** Takes connections from here instead of from the kernel; the options of interception then do not apply. */
  readonly transport?: Transport
}

/** What {@link TransparentProxy.replace} puts in force, as in {@link ProxyOptions}. */
export interface Decisions extends Pick<ProxyOptions, 'plugins' | 'default' | 'rules' | 'defaultAction'> {
  /** Ends the connections that the new rules decide differently, with a reset. Otherwise they keep their decision. */
  readonly reset?: boolean
}

/** What decides now. Rules are checked against these plugins. */
interface InForce {
  plugins: readonly Plugin[]
  default: Verdict
}

/** Interception whose connections are decided by plugins. */
export class TransparentProxy implements AsyncDisposable {
  readonly #interception: Interception
  readonly #transport: Transport
  readonly #inForce: InForce
  /** That are not asked any more. */
  readonly #replaced = new Set<Plugin>()
  readonly #decisionMs: number
  #closing: Promise<void> | undefined

  /**
   * Starts. When this returns, new connections are intercepted. Throws `TproxyError`; then nothing stays set up.
   * An upstream of a plugin that runs on this host is exempted from interception first, or the start is refused (`E_LOOP`).
   */
  static async open(options: ProxyOptions = {}): Promise<TransparentProxy> {
    checkProxyOptions(options)
    const inForce: InForce = { plugins: listed(options.plugins ?? []), default: options.default ?? direct() }
    const checkPlugins = ({ rules }: RuleList) => {
      const names = new Set(inForce.plugins.map(({ name }) => name))
      for (const [index, { via }] of rules.entries())
        if (via !== undefined && !names.has(via))
          throw new TproxyError('E_RULE', `rule ${index + 1}: there is no plugin ${via}`, {
            hint: names.size === 0 ? 'there is none at all' : `there are ${[...names].join(', ')}`,
          })
    }
    const transport = options.transport ?? (await openTransport(options, checkPlugins))
    try {
      await exemptUpstreams(transport, inForce.plugins)
      const { decisionMs, ...timeouts } = limits(options.timeouts)
      // The interception's own deadline is a backstop here: the plugins' comes first, and names who did not answer.
      const patient = { ...timeouts, decisionMs: decisionMs + backstopMs }
      const interception = new Interception(transport, patient, { names: options.names ?? false })
      return new TransparentProxy({ transport, interception, inForce, decisionMs })
    } catch (error) {
      await transport.close()
      throw error
    }
  }

  private constructor({
    transport,
    interception,
    inForce,
    decisionMs,
  }: {
    transport: Transport
    interception: Interception
    inForce: InForce
    decisionMs: number
  }) {
    this.#transport = transport
    this.#interception = interception
    this.#decisionMs = decisionMs
    this.#inForce = inForce
    interception.connections.subscribe((connection) => void this.#decide(connection))
  }

  /** Decided connections, each when it is decided. Hot; completes on {@link close}. */
  get sessions(): Observable<Session> {
    return this.#interception.sessions
  }

  /** Problems that cost one connection, or nothing, as messages for people. */
  get warnings(): Observable<string> {
    return this.#interception.warnings
  }

  /** The rules in force; undefined for a transport that has none. They can be read and replaced. */
  get rules(): Rules | undefined {
    return this.#interception.rules
  }

  /** Names of the interfaces whose connections are taken now: they come and go. None for a transport that has none. */
  get interfaces(): readonly string[] {
    return this.#interception.interfaces
  }

  /** Connections that an earlier process left to the kernel, as this one found them; see `keepSpliced`. */
  get adopted(): readonly Adopted[] {
    return this.#interception.adopted
  }

  /** Sessions that last, the oldest first. */
  get running(): ReadonlySet<Session> {
    return this.#interception.running
  }

  /** How many sessions last by who carries them. */
  get carried(): { readonly splice: number; readonly relay: number } {
    return this.#interception.carried
  }

  /** Which reads skip the network stack, and why none do although it was asked for. */
  get fastpath(): FastpathState {
    return this.#interception.fastpath
  }

  /** What the kernel remembers of verdicts, see {@link Remember}; undefined for a transport that cannot. */
  get memories(): Memories | undefined {
    return this.#interception.memories
  }

  /**
   * What the kernel counted so far: packets, or connections of the fastpath, by program (`steering`, `splice`, `fastpath`) and
   * by the reasons of contract.h.
   */
  counters(): Readonly<Record<string, Readonly<Record<string, bigint>>>> {
    return this.#interception.counters()
  }

  /**
   * What our programs in the kernel do with each packet from and to a destination, in order, while subscribed to; one
   * subscriber at a time (`E_STATE`); it completes on {@link close}. Each hook costs each packet some 0.14 µs more meanwhile, also of other destinations.
   * Errors with `E_OPTION` for what is no address, and `E_STATE` for a transport that cannot.
   */
  trace(target: TraceTarget): Observable<TraceStep> {
    return this.#interception.trace(target)
  }

  /** How many sessions last. */
  get active(): number {
    return this.#interception.active
  }

  /**
   * Puts other plugins and rules in force, together: what is left out is as if left out at {@link open}. No connection is lost;
   * those that are open keep their decision. Rejects as {@link open} and `Rules.replace` do, and then nothing has changed.
   * Plugins that are not asked any more clean up with the others, on {@link close}: their upstreams may still be in use.
   */
  async replace(decisions: Decisions): Promise<void> {
    checkDecisions(decisions)
    const { plugins = [], default: verdict = direct(), rules = [], ...how } = decisions
    await exemptUpstreams(this.#transport, listed(plugins))
    const before = { ...this.#inForce }
    Object.assign(this.#inForce, { plugins, default: verdict })
    try {
      this.rules?.replace(rules, { default: how.defaultAction, reset: how.reset ?? false })
    } catch (error) {
      Object.assign(this.#inForce, before)
      throw error
    }
    for (const plugin of before.plugins) this.#replaced.add(plugin)
  }

  /** See {@link Interception.close}. Then plugins clean up; throws `E_PLUGIN` when one cannot. */
  close(options?: { drainMs?: number }): Promise<void> {
    this.#closing ??= this.#interception
      .close(options)
      .then(() => closePlugins([...this.#replaced.union(new Set(this.#inForce.plugins))]))
    return this.#closing
  }

  /** Resets all sessions now. */
  abort(): void {
    this.#interception.abort()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #decide(connection: Connection): Promise<void> {
    let verdict: Verdict
    let plugin: string | undefined
    let failure: Error | undefined
    try {
      const timeoutMs = this.#decisionMs
      const named = connection.via
      const { plugins: all, default: fallback } = this.#inForce
      const plugins = named === undefined ? all : all.filter(({ name }) => name === named)
      if (named !== undefined && plugins.length === 0)
        throw new TproxyError('E_PLUGIN', `plugin ${named}, which a rule asked for, was replaced meanwhile`)
      ;({ verdict, plugin } = await ask(plugins, connection, { fallback, timeoutMs }))
    } catch (error) {
      // Closed, never direct: whoever wrote the plugin did not say that this may pass.
      failure = error as Error
      verdict = drop()
      this.#interception.warn(`${formatEndpoint(connection.destination)} refused: ${reason(error)}`)
    }
    // A plugin may have taken or settled it by itself, or the deadline has passed.
    if (!connection.settled) await connection.settle(verdict, plugin, failure)
  }
}

/** Throws `E_OPTION` for what is no list of plugins. */
function listed(plugins: readonly Plugin[]): readonly Plugin[] {
  if (!Array.isArray(plugins))
    throw new TproxyError('E_OPTION', 'plugins is no list', { hint: 'write plugins: [socks({ url })]' })
  const wrong = plugins.findIndex((plugin) => typeof plugin !== 'function')
  if (wrong >= 0)
    throw new TproxyError('E_OPTION', `plugins[${wrong}] is no plugin`, {
      hint: 'a plugin is a function from a connection to a verdict',
    })
  return plugins
}

/** Those on this host, before a connection for them can come back to us. */
async function exemptUpstreams(transport: Transport, plugins: readonly Plugin[]): Promise<void> {
  for (const { address } of plugins.flatMap(({ upstreams = [] }) => upstreams))
    if (address !== undefined) await transport.exempt?.(address)
}

/** Starts interception and leaves the decisions to you: settle each of `connections`. */
export async function intercept(options: InterceptOptions = {}): Promise<Interception> {
  checkInterceptOptions(options)
  return new Interception(await openTransport(options), options.timeouts)
}
