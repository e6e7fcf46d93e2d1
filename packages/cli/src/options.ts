import {
  type FastpathMode,
  type InterfaceSelection,
  type RoutingOptions,
  type Timeouts,
  TproxyError,
} from '@tproxy/core'
import type { Given } from './invocation.ts'
import { type MetricsAddress, metricsForm, parseMetricsAddress } from './metrics/address.ts'
import { misfitDuration, parseDuration } from './quantities.ts'

/** An option: as util.parseArgs wants it, and what help, manual and completion say of it. */
export type Flag = {
  readonly short?: string
  readonly says: string
} & (
  | { readonly type: 'boolean' }
  | { readonly type: 'string'; readonly value: string; readonly complete?: Completion }
)

/** What can stand there: one of these words, or something of this kind. */
export type Completion = readonly string[] | 'file' | 'interface' | 'user' | 'group'

/** By name, in the order in which they are told. */
export type Flags = Readonly<Record<string, Flag>>

export const selfFlags: Flags = {
  help: { type: 'boolean', short: 'h', says: 'how to use it' },
  version: { type: 'boolean', short: 'V', says: 'which one it is' },
}
/** Those of what answers a question. */
export const answerFlags: Flags = { json: { type: 'boolean', says: 'for programs' }, ...selfFlags }
export const config: Flag = {
  type: 'string',
  short: 'c',
  value: 'FILE',
  complete: 'file',
  says: 'see tproxy.yaml(5); plugins and rules of the command line come before those of the file, its other options take their place',
}
export const rule: Flag = {
  type: 'string',
  value: 'TEXT',
  says: 'ACTION [[not] MATCH…] [via PLUGIN] [log]: the first that matches decides. ACTION: proxy, direct, drop, reject, redirect:IFACE, redirect-into:IFACE. MATCH: tcp, udp, icmp, … or proto N, ip4, ip6, from ADDRESS, to ADDRESS, sport PORT, dport PORT, interface NAME, uid USER, gid GROUP, cgroup PATH, process NAME, mark N, dscp N; each may be a list: dport 80,443,8000-8999',
}
export const rules: Flag = {
  type: 'string',
  value: 'FILE',
  complete: 'file',
  says: 'one rule a line, # begins a comment; default ACTION: for what none matches',
}

/** Those of interception, by what they are about. */
export const sections: Readonly<Record<string, Flags>> = {
  'What is intercepted': {
    interface: {
      type: 'string',
      short: 'i',
      value: 'NAME',
      complete: 'interface',
      says: 'only there; repeat it, or separate by commas. auto: where default routes lead, all: where any route leads (the default for a command)',
    },
    config,
    rule,
    rules,
    mark: {
      type: 'string',
      value: 'N',
      says: 'of our policy routing, should the default belong to somebody else',
    },
    table: { type: 'string', value: 'N', says: 'likewise' },
    priority: { type: 'string', value: 'N', says: 'likewise' },
  },
  'What becomes of it': {
    plugin: {
      type: 'string',
      short: 'p',
      value: 'NAME[=ARGUMENT]',
      complete: ['socks', 'http'],
      says: '@tproxy/plugin-NAME or tproxy-plugin-NAME, installed beside tproxy-run, or a path',
    },
    default: {
      type: 'string',
      value: 'VERDICT',
      complete: ['direct', 'drop'],
      says: 'direct (the default) or drop: for what no plugin decides',
    },
    carry: {
      type: 'string',
      value: 'HOW',
      complete: ['splice', 'relay'],
      says: 'splice (the default): in the kernel where that can be; relay: all bytes through tproxy-run',
    },
    keep: {
      type: 'boolean',
      says: 'with --interface: connections in the kernel outlive tproxy-run, and the next one with --keep takes them over. A command ends with tproxy-run',
    },
    names: {
      type: 'boolean',
      says: 'upstreams get the host name in a TLS ClientHello or HTTP/1 request, instead of the address that the program chose, and resolve it',
    },
    fastpath: {
      type: 'string',
      value: 'MODE',
      complete: ['to-proxy', 'both', 'off'],
      says: 'to-proxy: where tproxy-run carries the bytes, what the command sends skips the network stack; both: what it receives too; off (the default). docs/fastpath.md says what that changes for the command',
    },
    'connect-timeout': {
      type: 'string',
      value: 'T',
      says: 'to reach an upstream or destination: seconds, or with a unit, such as 500ms, 30s (the default), 5m; socks and http give up after 10s',
    },
    'idle-timeout': { type: 'string', value: 'T', says: 'without a byte; default 2h, 0: never' },
    'drain-timeout': {
      type: 'string',
      value: 'T',
      says: 'for connections to finish once it is stopped; default 5s',
    },
  },
  'The command': {
    user: {
      type: 'string',
      short: 'u',
      value: 'NAME',
      complete: 'user',
      says: 'run it as another user. Started by sudo, it runs as the user who called sudo',
    },
  },
  'What is shown': {
    verbose: { type: 'boolean', short: 'v', says: 'every connection' },
    quiet: { type: 'boolean', short: 'q', says: 'only what makes us fail' },
    json: { type: 'boolean', says: 'one event a line: on stderr with a command, else on stdout' },
    metrics: {
      type: 'string',
      value: 'ADDRESS',
      says: 'for Prometheus, at http://HOST:PORT/metrics, or unix:PATH; default: nowhere',
    },
    ...selfFlags,
  },
}

/** Those of interception. */
export const flags: Flags = Object.assign({}, ...Object.values(sections)) as Flags

/** Nothing is reached in no time. */
export const leastConnectMs = 1

/** `--plugin NAME[=ARGUMENT]`; a configuration file may say more. */
export interface PluginChoice {
  readonly name: string
  readonly argument: string | undefined
  readonly options?: Readonly<Record<string, unknown>> | undefined
  /** A relative path is taken from here. Default: the working directory. */
  readonly from?: string
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
      connectMs: milliseconds('connect-timeout', last('connect-timeout'), leastConnectMs),
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

function milliseconds(name: string, text: string | undefined, leastMs?: number): number | undefined {
  if (text === undefined) return undefined
  const expected = misfitDuration(text, leastMs)
  if (expected !== undefined) throw new TproxyError('E_OPTION', `--${name} is "${text}"`, { hint: expected })
  return parseDuration(text)
}

/** Without what is undefined. */
export function defined<T extends Record<string, number | undefined>>(
  values: T,
): { [Key in keyof T]?: Exclude<T[Key], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [Key in keyof T]?: Exclude<T[Key], undefined>
  }
}
