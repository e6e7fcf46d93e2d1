import {
  type FastpathMode,
  type InterfaceSelection,
  type RoutingOptions,
  type Timeouts,
  TproxyError,
} from '@tproxy/core'
import type { Given } from './invocation.ts'
import { type MetricsAddress, metricsForm, parseMetricsAddress } from './metrics/address.ts'
import { durationForm, parseDuration } from './quantities.ts'

/** Options, as util.parseArgs wants them. */
export type Flags = Readonly<Record<string, { type: 'string' | 'boolean'; short?: string }>>

/** Those of interception. */
export const flags: Flags = {
  config: { type: 'string', short: 'c' },
  plugin: { type: 'string', short: 'p' },
  rule: { type: 'string' },
  rules: { type: 'string' },
  default: { type: 'string' },
  carry: { type: 'string' },
  keep: { type: 'boolean' },
  names: { type: 'boolean' },
  fastpath: { type: 'string' },
  metrics: { type: 'string' },
  interface: { type: 'string', short: 'i' },
  user: { type: 'string', short: 'u' },
  json: { type: 'boolean' },
  verbose: { type: 'boolean', short: 'v' },
  quiet: { type: 'boolean', short: 'q' },
  'connect-timeout': { type: 'string' },
  'idle-timeout': { type: 'string' },
  'drain-timeout': { type: 'string' },
  mark: { type: 'string' },
  table: { type: 'string' },
  priority: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'V' },
}

/** `--plugin NAME[=ARGUMENT]`; a configuration file may say more. */
export interface PluginChoice {
  readonly name: string
  readonly argument: string | undefined
  readonly options?: Readonly<Record<string, unknown>> | undefined
}

/** `--rule TEXT` or `--rules FILE`; their order among each other counts. */
export type RuleSource = { readonly text: string } | { readonly file: string }

export interface Options {
  /** A file that says the rest. */
  readonly config: string | undefined
  readonly plugins: readonly PluginChoice[]
  readonly rules: readonly RuleSource[]
  readonly default: 'direct' | 'drop' | undefined
  readonly carry: 'splice' | 'relay' | undefined
  readonly keep: boolean
  readonly names: boolean
  readonly fastpath: FastpathMode | undefined
  /** Where metrics are served; undefined: nowhere. */
  readonly metrics: MetricsAddress | undefined
  readonly interfaces: InterfaceSelection | undefined
  readonly user: string | undefined
  readonly json: boolean
  readonly verbosity: 'quiet' | 'normal' | 'verbose'
  readonly routing: RoutingOptions
  readonly timeouts: Timeouts
}

/** Checks and converts what was given. Throws `E_OPTION`. */
export function readOptions(given: readonly Given[]): Options {
  const all = (name: string) => given.flatMap((option) => (option.name === name ? [option.value ?? ''] : []))
  const last = (name: string) => all(name).at(-1)
  const has = (name: string) => given.some((option) => option.name === name)
  if (has('quiet') && has('verbose'))
    throw new TproxyError('E_OPTION', '--quiet and --verbose contradict each other')
  const fallback = last('default')
  if (fallback !== undefined && fallback !== 'direct' && fallback !== 'drop')
    throw new TproxyError('E_OPTION', `--default is "${fallback}"`, { hint: 'direct or drop' })
  const carry = last('carry')
  if (carry !== undefined && carry !== 'splice' && carry !== 'relay')
    throw new TproxyError('E_OPTION', `--carry is "${carry}"`, { hint: 'splice or relay' })
  const fastpath = last('fastpath')
  if (fastpath !== undefined && fastpath !== 'to-proxy' && fastpath !== 'both' && fastpath !== 'off')
    throw new TproxyError('E_OPTION', `--fastpath is "${fastpath}"`, { hint: 'to-proxy, both or off' })
  const metrics = last('metrics')
  if (metrics !== undefined && parseMetricsAddress(metrics) === undefined)
    throw new TproxyError('E_OPTION', `--metrics is "${metrics}"`, { hint: metricsForm })
  return {
    config: last('config'),
    plugins: all('plugin').map(pluginChoice),
    rules: given.flatMap(({ name, value = '' }): RuleSource[] =>
      name === 'rule' ? [{ text: value }] : name === 'rules' ? [{ file: value }] : [],
    ),
    default: fallback,
    carry,
    keep: has('keep'),
    names: has('names'),
    fastpath,
    metrics: metrics === undefined ? undefined : parseMetricsAddress(metrics),
    interfaces: has('interface') ? interfaceSelection(all('interface')) : undefined,
    user: last('user'),
    json: has('json'),
    verbosity: has('quiet') ? 'quiet' : has('verbose') ? 'verbose' : 'normal',
    routing: defined({
      mark: whole('mark', last('mark')),
      table: whole('table', last('table')),
      priority: whole('priority', last('priority')),
    }),
    timeouts: defined({
      connectMs: milliseconds('connect-timeout', last('connect-timeout')),
      idleMs: milliseconds('idle-timeout', last('idle-timeout')),
      drainMs: milliseconds('drain-timeout', last('drain-timeout')),
    }),
  }
}

/** `NAME[=ARGUMENT]`. */
export function pluginChoice(text: string): PluginChoice {
  const at = text.indexOf('=')
  const name = at < 0 ? text : text.slice(0, at)
  if (name === '')
    throw new TproxyError('E_OPTION', '--plugin has no name', { hint: 'write --plugin NAME=ARGUMENT' })
  return { name, argument: at < 0 ? undefined : text.slice(at + 1) }
}

export function interfaceSelection(values: readonly string[]): InterfaceSelection {
  const names = values.flatMap((value) => value.split(',')).map((name) => name.trim())
  if (names.includes('')) throw new TproxyError('E_OPTION', '--interface has an empty name')
  const [first] = names
  if (names.length === 1 && (first === 'auto' || first === 'all')) return first
  if (names.includes('auto') || names.includes('all'))
    throw new TproxyError('E_OPTION', '--interface auto and --interface all stand alone')
  return [...new Set(names)]
}

function whole(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text))
    throw new TproxyError('E_OPTION', `--${name} is "${text}"`, { hint: 'a number, such as 100 or 0x64' })
  return Number(text)
}

function milliseconds(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = parseDuration(text)
  if (value === undefined) throw new TproxyError('E_OPTION', `--${name} is "${text}"`, { hint: durationForm })
  return value
}

/** Without what is undefined. */
export function defined<T extends Record<string, number | undefined>>(
  values: T,
): { [Key in keyof T]?: Exclude<T[Key], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [Key in keyof T]?: Exclude<T[Key], undefined>
  }
}
