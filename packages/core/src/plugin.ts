import type { Connection } from './connection.ts'
import { reason, TproxyError } from './errors.ts'
import { placeOf } from './place.ts'
import type { Upstream } from './upstream.ts'
import { isVerdict, type Verdict } from './verdict.ts'

/**
 * Decides connections. Return a verdict, or `undefined` to leave the connection to the next plugin, or a promise of
 * either. The function's own name is its identity in logs and sessions.
 *
 * A plugin that throws, rejects or does not answer within the deadline costs its own connection only, which is refused.
 */
export interface Plugin {
  (connection: Connection): Verdict | undefined | Promise<Verdict | undefined>
  /** The upstreams the plugin may name, when known beforehand: those on this host are then exempted at start. */
  readonly upstreams?: readonly Upstream[]
  /** Called once, after the proxy that asked it has closed: what it says holds up the end for five seconds at most. */
  readonly close?: () => void | Promise<void>
}

/** What a plugin module exports as `default`: `argument` is the text after `=` in `--plugin name=argument`. */
export type PluginFactory<Options = { argument?: string; env?: NodeJS.ProcessEnv }> = (
  options: Options,
) => Plugin | Promise<Plugin>

const closeMs = 5_000

/** Lets plugins clean up, all of them. Throws `E_PLUGIN` when one fails or takes too long. */
export async function closePlugins(plugins: readonly Plugin[]): Promise<void> {
  const closing = plugins.map(async (plugin) => {
    const deadline = new Deadline(closeMs, 'did not close')
    try {
      await deadline.race(plugin.name || 'anonymous', () => plugin.close?.())
    } finally {
      deadline.clear()
    }
  })
  const failed = (await Promise.allSettled(closing)).find(({ status }) => status === 'rejected')
  if (failed?.status === 'rejected') throw failed.reason as Error
}

/** A verdict and who gave it; `plugin` is undefined for the default. */
export interface Decision {
  readonly verdict: Verdict
  readonly plugin: string | undefined
}

/**
 * Asks plugins in order; the first defined answer wins, `fallback` applies when there is none.
 * Throws `E_PLUGIN` when a plugin throws or answers with something that is no verdict, `E_TIMEOUT` after `timeoutMs`.
 */
export async function ask(
  plugins: readonly Plugin[],
  connection: Connection,
  { fallback, timeoutMs }: { fallback: Verdict; timeoutMs: number },
): Promise<Decision> {
  const deadline = new Deadline(timeoutMs, 'gave no verdict')
  try {
    for (const plugin of plugins) {
      const name = plugin.name || 'anonymous'
      const answer = await deadline.race(name, () => plugin(connection))
      if (answer === undefined) continue
      if (!isVerdict(answer))
        throw new TproxyError('E_PLUGIN', `plugin ${name} returned something that is no verdict`, {
          hint: 'return direct(), via(upstream), drop() or undefined',
        })
      return { verdict: answer, plugin: name }
    }
    return { verdict: fallback, plugin: undefined }
  } finally {
    deadline.clear()
  }
}

/** One timer for all that plugins are asked one after the other; none while they answer at once. */
class Deadline {
  readonly #timeoutMs: number
  readonly #lacking: string
  readonly #since = performance.now()
  #timer: NodeJS.Timeout | undefined
  #passed: Promise<never> | undefined
  #asked = ''

  constructor(timeoutMs: number, lacking: string) {
    this.#timeoutMs = timeoutMs
    this.#lacking = lacking
  }

  async race(name: string, ask: () => unknown): Promise<unknown> {
    this.#asked = name
    try {
      const answer = ask()
      return answer instanceof Promise ? await Promise.race([answer, this.#begin()]) : answer
    } catch (cause) {
      if (cause instanceof TproxyError && cause.code === 'E_TIMEOUT') throw cause
      const place = placeOf(cause)
      const where = place === undefined ? '' : ` (at ${place})`
      throw new TproxyError('E_PLUGIN', `plugin ${name} failed: ${reason(cause)}${where}`, { cause })
    }
  }

  clear(): void {
    clearTimeout(this.#timer)
  }

  #begin(): Promise<never> {
    if (this.#passed !== undefined) return this.#passed
    const { promise, reject } = Promise.withResolvers<never>()
    promise.catch(() => {})
    this.#passed = promise
    this.#timer = setTimeout(
      () =>
        reject(
          new TproxyError('E_TIMEOUT', `plugin ${this.#asked} ${this.#lacking} within ${this.#timeoutMs} ms`),
        ),
      this.#timeoutMs - (performance.now() - this.#since),
    )
    return promise
  }
}
