import { dirname, resolve } from 'node:path'
import {
  type Action,
  examineNames,
  type FastpathMode,
  type InterfaceSelection,
  type RoutingOptions,
  type Rule,
  type Timeouts,
  TproxyError,
} from '@tproxy/core'
import type { ConfigFile } from './config/schema.ts'
import { type MetricsAddress, parseMetricsAddress } from './metrics/address.ts'
import { defined, interfaceSelection, type Options, type PluginChoice, pluginChoice } from './options.ts'
import { Problems } from './problems.ts'
import { parseDuration } from './quantities.ts'
import { readRules } from './rules-file.ts'

/** What to do, as the command line and the files that it names say together. */
export interface Settings {
  /** What the configuration file says; empty when there is none. */
  readonly file: ConfigFile
  readonly plugins: readonly PluginChoice[]
  readonly rules: readonly Rule[]
  /** For what no rule matches; undefined when nobody says so. */
  readonly defaultAction: Action | undefined
  /** For what no plugin decides. */
  readonly default: 'direct' | 'drop'
  readonly carry: 'splice' | 'relay'
  /** Whether spliced connections outlive us. */
  readonly keep: boolean
  /** Whether upstreams are told host names. */
  readonly names: boolean
  readonly fastpath: FastpathMode
  /** Where metrics are served; undefined: nowhere. */
  readonly metrics: MetricsAddress | undefined
  readonly interfaces: InterfaceSelection | undefined
  readonly user: string | undefined
  readonly routing: RoutingOptions
  readonly timeouts: Timeouts
}

type Sources = Pick<Options, 'config' | 'rules'>

/**
 * Reads the files. Plugins and rules of the command line come before those of the configuration file; its other options take
 * their place. Throws {@link Problems}.
 */
export async function readSettings(options: Options): Promise<Settings> {
  const { file, rules, defaultAction } = await readFiles(options)
  const timeout = (key: 'connect-timeout' | 'idle-timeout' | 'drain-timeout') =>
    file[key] === undefined ? undefined : parseDuration(String(file[key]))
  const { mark, table, priority } = file
  const carry = options.carry ?? file.carry ?? 'splice'
  const keep = options.keep || file.keep === true
  if (keep) requireSplicing(carry)
  return {
    file,
    plugins: [
      ...options.plugins,
      ...(file.plugins ?? []).map((plugin) => pluginOfFile(plugin, options.config ?? '')),
    ],
    rules,
    defaultAction,
    default: options.default ?? file['default-verdict'] ?? 'direct',
    carry,
    keep,
    names: options.names || file.names === true,
    fastpath: options.fastpath ?? file.fastpath ?? 'off',
    metrics: options.metrics ?? (file.metrics === undefined ? undefined : parseMetricsAddress(file.metrics)),
    interfaces:
      options.interfaces ??
      (file.interfaces === undefined ? undefined : interfaceSelection([file.interfaces].flat())),
    user: options.user ?? file.user,
    routing: { ...defined({ mark, table, priority }), ...options.routing },
    timeouts: {
      ...defined({
        connectMs: timeout('connect-timeout'),
        idleMs: timeout('idle-timeout'),
        drainMs: timeout('drain-timeout'),
      }),
      ...options.timeouts,
    },
  }
}

/** A plugin that a configuration file names. A path is taken from the file, not from where somebody happens to be. */
export function pluginOfFile(plugin: NonNullable<ConfigFile['plugins']>[number], file: string): PluginChoice {
  const choice = typeof plugin === 'string' ? pluginChoice(plugin) : { argument: undefined, ...plugin }
  return { ...choice, from: resolve(dirname(file)) }
}

/** Throws `E_OPTION` where there would be nothing to keep. */
export function requireSplicing(carry: Settings['carry']): void {
  if (carry === 'relay')
    throw new TproxyError('E_OPTION', 'keep with carry relay', {
      hint: 'only what the kernel carries outlives tproxy-run: leave out one of them',
    })
}

/** The rules alone, and what else the configuration file says. Throws {@link Problems}. */
export async function readFiles(
  sources: Sources,
): Promise<Pick<Settings, 'file' | 'rules' | 'defaultAction'>> {
  const own = readRules(sources.rules)
  const found = await readConfigFile(sources.config)
  const problems = [...own.problems, ...('problems' in found ? found.problems : [])]
  if (!('config' in found) || problems.length > 0) throw new Problems(problems)
  const { config } = found
  const rules = [...own.rules, ...config.rules]
  const defaultAction = own.default ?? config['default-action']
  const unknown = examineNames(rules, defaultAction)
    .filter(({ severity }) => severity === 'error')
    .map((finding) => {
      const inFile = finding.rule - own.rules.length
      const isOwn = finding.rule === 0 ? own.default !== undefined : inFile <= 0
      return isOwn ? own.describe(finding) : found.describe({ ...finding, rule: Math.max(0, inFile) })
    })
  if (unknown.length > 0) throw new Problems(unknown)
  return { file: config, rules, defaultAction }
}

async function readConfigFile(
  file: string | undefined,
): Promise<ReturnType<typeof import('./config/read.ts').readConfig>> {
  if (file === undefined) return { config: { rules: [] }, describe: ({ message }) => message }
  // Only now: it takes a while to load.
  const { readConfig } = await import('./config/read.ts')
  return readConfig(file)
}
