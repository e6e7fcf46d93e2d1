import {
  inspect,
  type Plugin,
  type RoutingOptions,
  reason,
  selectInterfaces,
  TproxyError,
} from '@tproxy/core'
import type { OpenedConfig } from '../config/open.ts'
import { explain, type Finding } from '../finding.ts'
import { getent } from '../invoker.ts'
import { parseMetricsAddress, tryMetricsAddress } from '../metrics/address.ts'
import { defined, interfaceSelection } from '../options.ts'
import { loadPlugins } from '../plugins.ts'
import { pluginOfFile, requireSplicing } from '../settings.ts'
import { examineRuleList } from './rule-list.ts'

/** What a look at the file and at this host finds, besides what is malformed. Nothing is applied. */
export async function examine(config: OpenedConfig, file: string): Promise<Finding[]> {
  const { errors, plugins } = await examinePlugins(config, file)
  return [
    ...errors,
    ...(errors.length === 0 ? examineChoice(config, plugins) : []),
    ...(errors.length === 0 ? await examineUpstreams(config, plugins) : []),
    ...examineInterfaces(config),
    ...examineRulesOf(config),
    ...examineRouting(config),
    ...examineUser(config),
    ...examineKeep(config),
    ...(await examineMetrics(config)),
  ]
}

type Path = readonly PropertyKey[]

const attempt = (config: OpenedConfig, path: Path, work: () => void): Finding[] => {
  try {
    work()
    return []
  } catch (error) {
    return [{ severity: 'error', place: config.place(path), ...explain(error) }]
  }
}

/** Loads them, for only they know their options. */
async function examinePlugins(
  config: OpenedConfig,
  file: string,
): Promise<{ errors: Finding[]; plugins: Plugin[] }> {
  const errors: Finding[] = []
  const plugins: Plugin[] = []
  for (const [index, given] of config.plugins) {
    try {
      plugins.push(...(await loadPlugins([pluginOfFile(given, file)], process.cwd())))
    } catch (error) {
      const [option] = optionPaths(error)
      const path = ['plugins', index, ...(option === undefined ? [] : ['options', ...option])]
      errors.push({ severity: 'error', place: config.place(path), ...explainCause(error) })
    }
  }
  return { errors, plugins }
}

/** Which options of a plugin made with definePlugin are wrong, as zod has it somewhere below. */
function optionPaths(error: unknown): Path[] {
  if (!(error instanceof Error)) return []
  if (!('issues' in error)) return optionPaths(error.cause)
  const issues = error.issues as readonly { path: Path; keys?: readonly string[] }[]
  return issues.map(({ path, keys = [] }) => [...path, ...keys.slice(0, 1)])
}

/** A plugin's own remedy stands in what was thrown first. */
function explainCause(error: unknown): ReturnType<typeof explain> {
  const { message, remedy } = explain(error)
  const own = error instanceof Error && error.cause instanceof TproxyError ? error.cause.hint : undefined
  return remedy === undefined && own !== undefined
    ? { message: message.replace(` (${own})`, ''), remedy: own }
    : { message, remedy }
}

/** Whether each plugin that is asked for is there, and each that is there asked for. */
function examineChoice(config: OpenedConfig, plugins: readonly Plugin[]): Finding[] {
  const names = plugins.map(({ name }) => name)
  const missing = config.rules.flatMap(([index, { via }]): Finding[] =>
    via === undefined || names.includes(via)
      ? []
      : [
          {
            severity: 'error',
            place: config.place(['rules', index, 'via'], via),
            message: `there is no plugin ${via}`,
            remedy: names.length === 0 ? 'there is none at all' : `there are ${names.join(', ')}`,
          },
        ],
  )
  const { 'default-action': fallback = 'proxy' } = config.sound
  const asking = config.rules.flatMap(([, { action, via }]) => (action === 'proxy' ? [via] : []))
  if (fallback === 'proxy' || asking.includes(undefined)) return missing
  const idle = config.plugins.flatMap(([index], at): Finding[] =>
    asking.includes(names[at])
      ? []
      : [
          {
            severity: 'warning',
            place: config.place(['plugins', index]),
            message: `plugin ${names[at]} is never asked: no rule says proxy, and default-action is ${fallback}`,
            remedy: `write a rule, such as proxy tcp via ${names[at]}`,
          },
        ],
  )
  return [...missing, ...idle]
}

/** What can be known of them without a packet. */
async function examineUpstreams(config: OpenedConfig, plugins: readonly Plugin[]): Promise<Finding[]> {
  const inspection = inspect()
  const found: Finding[] = []
  for (const [at, { name, upstreams = [] }] of plugins.entries())
    for (const { address } of upstreams)
      try {
        if (address !== undefined) await inspection.upstream(address)
      } catch (error) {
        const { message, remedy } = explain(error)
        const [index = 0, plugin] = config.plugins[at] ?? []
        const place = config.place(['plugins', index])
        const remedies = [remedy, plugin && forWantOfUrl(plugin)].filter((each) => each !== undefined)
        found.push({
          severity: 'warning',
          place,
          message: `upstream of ${name}: ${message}`,
          remedy: remedies.join('; ') || undefined,
        })
      }
  return found
}

/** Where plugins of ours look that have no argument, in either case. */
const variables: Readonly<Record<string, readonly [string, ...string[]]>> = {
  socks: ['ALL_PROXY'],
  http: ['HTTPS_PROXY', 'HTTP_PROXY', 'ALL_PROXY'],
}

/** Why a plugin goes to the usual port, if it does for want of a URL. */
function forWantOfUrl(plugin: OpenedConfig['plugins'][number][1]): string | undefined {
  const { name, argument } = pluginOfFile(plugin, '')
  const looked = variables[name]
  if (looked === undefined || argument) return undefined
  if (looked.some((variable) => process.env[variable] || process.env[variable.toLowerCase()]))
    return undefined
  return `it has no argument, and no ${looked[0]} is set, which sudo removes: sudo --preserve-env=${looked[0]}`
}

function examineInterfaces(config: OpenedConfig): Finding[] {
  const { interfaces } = config.sound
  if (interfaces === undefined) return []
  return [interfaces].flat().flatMap((name, index) => {
    const path = ['interfaces', ...(typeof interfaces === 'string' ? [] : [index])]
    return attempt(config, path, () => selectInterfaces(interfaceSelection([name])))
  })
}

function examineRulesOf(config: OpenedConfig): Finding[] {
  const { 'default-action': fallback, interfaces } = config.sound
  const found = examineRuleList({
    rules: config.rules.map(([, rule]) => rule),
    default: fallback,
    whole: config.rules.every(([index], at) => index === at),
    place(finding) {
      if (finding === undefined) return config.place(['rules'])
      const index = config.rules[finding.rule - 1]?.[0]
      return config.place(
        index === undefined ? ['default-action'] : ['rules', index, ...finding.path],
        finding.value,
      )
    },
  })
  return [...found, ...elsewhere(config, interfaces)]
}

/** Rules for interfaces that are not intercepted. */
function elsewhere(config: OpenedConfig, interfaces: OpenedConfig['sound']['interfaces']): Finding[] {
  if (!Array.isArray(interfaces) || interfaces.some((name) => name === 'auto' || name === 'all')) return []
  return config.rules.flatMap(([index, rule]) =>
    [rule.interface ?? []]
      .flat()
      .filter((name) => !interfaces.includes(name))
      .map((name) => ({
        severity: 'warning',
        place: config.place(['rules', index, 'interface'], name),
        message: `packets that leave by ${name} are never looked at`,
        remedy: `add ${name} to interfaces`,
      })),
  )
}

function examineRouting(config: OpenedConfig): Finding[] {
  const { mark, table, priority } = config.sound
  const routing: RoutingOptions = defined({ mark, table, priority })
  const keys = Object.entries(routing)
  const wrong = keys.flatMap(([key, value]) => attempt(config, [key], () => inspect({ [key]: value })))
  if (wrong.length > 0) return wrong
  return attempt(config, [keys[0]?.[0] ?? 'mark'], () => inspect(routing).routing())
}

function examineUser(config: OpenedConfig): Finding[] {
  const { user } = config.sound
  return attempt(config, ['user'], () => {
    if (user !== undefined && getent(user) === undefined)
      throw new TproxyError('E_OPTION', `there is no user ${user}`, { hint: 'see: getent passwd' })
  })
}

function examineKeep(config: OpenedConfig): Finding[] {
  const { keep, carry = 'splice' } = config.sound
  if (keep !== true) return []
  return [
    ...attempt(config, ['keep'], () => requireSplicing(carry)),
    ...attempt(config, ['keep'], () => inspect().keep()),
  ]
}

async function examineMetrics(config: OpenedConfig): Promise<Finding[]> {
  const { metrics } = config.sound
  const address = metrics === undefined ? undefined : parseMetricsAddress(metrics)
  if (address === undefined) return []
  const outcome = await tryMetricsAddress(address).then(
    () => undefined,
    (error: unknown) => error,
  )
  if (outcome === undefined) return []
  const message = `serve metrics at ${metrics}: ${reason(outcome)}`
  return [{ severity: 'error', place: config.place(['metrics']), message, remedy: 'choose another address' }]
}
