import { statSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { resolve as resolvePath } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import {
  type DefinedPlugin,
  type Plugin,
  type PluginFactory,
  placesOf,
  reason,
  TproxyError,
} from '@tproxy/core'
import type { PluginChoice } from './options.ts'
import { reasonAndPlace } from './thrown-at.ts'

/** Where a plugin's module is, as a URL. Throws `E_PLUGIN`. */
export function resolvePlugin(
  name: string,
  cwd: string,
  resolve: (specifier: string) => string = (specifier) => import.meta.resolve(specifier),
): string {
  if (/^(\.{0,2}\/)/.test(name)) {
    const path = resolvePath(cwd, name)
    const there = statSync(path, { throwIfNoEntry: false })
    if (there === undefined) throw new TproxyError('E_PLUGIN', `plugin ${name}: there is no file ${path}`)
    if (there.isDirectory())
      throw new TproxyError('E_PLUGIN', `plugin ${name} is a directory`, {
        hint: `name the file in it, such as ${name.replace(/\/+$/, '')}/index.ts`,
      })
    return pathToFileURL(path).href
  }
  if (/^[a-z0-9][a-z0-9._-]*$/i.test(name))
    for (const specifier of [`@tproxy/plugin-${name}`, `tproxy-plugin-${name}`])
      try {
        return resolve(specifier)
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND')
          throw new TproxyError('E_PLUGIN', `plugin ${name}: ${reason(cause)}`, { cause })
      }
  // It may hold a password, and so may what is before an = in one.
  if (/:|.@/.test(name))
    throw new TproxyError('E_PLUGIN', 'a URL is the argument of a plugin, not its name', {
      hint: `write ${/^https?:/i.test(name) ? 'http' : 'socks'}=URL`,
    })
  // Never the working directory: whoever can write there would run code as root.
  const path = /\.[cm]?[jt]s$/.test(name) ? `./${name}` : `./${name}.ts`
  throw new TproxyError('E_PLUGIN', `there is no plugin ${name}`, {
    hint: `socks and http are built in; install tproxy-plugin-${name.replace(/\.[cm]?[jt]s$/, '')} beside tproxy-run, or give a path, such as ${path}`,
  })
}

/** What is loaded already. */
export interface Loaded {
  readonly choices: readonly PluginChoice[]
  readonly plugins: readonly Plugin[]
}

/**
 * Loads plugins in order, but those that are loaded by the same choice. Throws `E_PLUGIN` for what is no plugin, and whatever
 * the plugin throws for its argument. A function without a name gets the one it was asked for by. A module is read once: what changed in it has no effect.
 */
export async function loadPlugins(
  choices: readonly PluginChoice[],
  cwd: string,
  { choices: before, plugins: loaded }: Loaded = { choices: [], plugins: [] },
): Promise<Plugin[]> {
  const found = choices.map((choice) => ({ ...choice, url: resolvePlugin(choice.name, choice.from ?? cwd) }))
  using _hooks = lendPackages()
  const plugins: Plugin[] = []
  for (const [index, choice] of found.entries()) {
    const known = loaded[before.findIndex((each) => isDeepStrictEqual(each, choices[index]))]
    plugins.push(known ?? (await load(choice)))
  }
  return plugins
}

async function load({ name, argument, options, url }: PluginChoice & { url: string }): Promise<Plugin> {
  let factory: unknown
  try {
    factory = ((await import(url)) as { default?: unknown }).default
  } catch (cause) {
    throw notLoaded(name, cause)
  }
  if (typeof factory !== 'function')
    throw new TproxyError('E_PLUGIN', `plugin ${name} has no function as its default export`, {
      hint: 'export default ({ argument, env }) => function name(connection) { … }, or definePlugin({ … })',
    })
  const text = { ...(argument !== undefined && { argument }) }
  let plugin: unknown
  try {
    if ('load' in factory)
      plugin = (factory as DefinedPlugin<never>).load({ ...text, ...(options && { options }) })
    else if (options === undefined) plugin = await (factory as PluginFactory)({ ...text, env: process.env })
    else throw new TproxyError('E_OPTION', 'it takes no options, only an argument')
  } catch (cause) {
    throw new TproxyError('E_PLUGIN', `plugin ${name}: ${reason(cause)}`, { cause })
  }
  if (typeof plugin !== 'function')
    throw new TproxyError('E_PLUGIN', `plugin ${name}: its default export returned no plugin`, {
      hint: 'export default ({ argument, env }) => function name(connection) { … }',
    })
  // One that is frozen stays as it is.
  if (plugin.name === '') Reflect.defineProperty(plugin, 'name', { value: name })
  return plugin as Plugin
}

/** Where imports are resolved is no place in a plugin, and no file of its author. */
const ourselves = fileURLToPath(import.meta.url)

function notLoaded(name: string, cause: unknown): TproxyError {
  const [place] = placesOf(cause)
  const why = place?.path === ourselves ? reason(cause) : reasonAndPlace(cause)
  const lacking = /^Cannot find package '([^']+)'/.exec(reason(cause))?.[1]
  return new TproxyError(
    'E_PLUGIN',
    `plugin ${name} does not load: ${why.replace(` imported from ${ourselves}`, '')}`,
    { cause, ...(lacking !== undefined && { hint: `in its directory: npm install ${lacking}` }) },
  )
}

/** Lets a plugin anywhere on disk import what plugins are written with, ours unless it has its own. */
function lendPackages(): Disposable {
  const hooks = registerHooks({
    resolve(specifier, context, next) {
      try {
        return next(specifier, context)
      } catch (error) {
        if (!/^(@tproxy\/|(rxjs|zod)(\/|$))/.test(specifier)) throw error
        try {
          return next(specifier, { ...context, parentURL: import.meta.url })
        } catch (own) {
          // Neither has it: what matters is that the plugin does not.
          throw (own as NodeJS.ErrnoException).code === 'ERR_MODULE_NOT_FOUND' ? error : own
        }
      }
    },
  })
  return { [Symbol.dispose]: () => hooks.deregister() }
}
