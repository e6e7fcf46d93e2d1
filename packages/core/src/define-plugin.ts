import type { z } from 'zod'
import type { Connection } from './connection.ts'
import { TproxyError } from './errors.ts'
import type { Plugin } from './plugin.ts'
import { validOptions } from './plugin-options.ts'
import type { Verdict } from './verdict.ts'

type Decide = (connection: Connection) => Verdict | undefined | Promise<Verdict | undefined>
type Made = Pick<Plugin, 'upstreams' | 'close'> & { readonly decide: Decide }

/** What {@link definePlugin} wants to know. */
export interface PluginDefinition<Schema extends z.ZodObject> {
  /** Shown in logs and sessions, and named by `via` in rules. */
  readonly name: string
  /** What the options are, as a zod schema. What a field's `describe` says is told to whoever gets it wrong. */
  readonly options: Schema
  /** The option that the text after `=` in `--plugin NAME=TEXT` is for; without it there can be no such text. */
  readonly argument?: keyof z.input<Schema> & string
  /** Makes a plugin, by valid options. */
  readonly create: (options: z.output<Schema>) => Decide | Made
}

/** How the command line and the configuration file give options. */
export interface PluginText {
  /** The text after `=`. */
  readonly argument?: string
  /** The mapping `options` of the configuration file. */
  readonly options?: Readonly<Record<string, unknown>>
}

/** A plugin that can be made by options, and loaded by `--plugin` when it is the default export of a module. */
export interface DefinedPlugin<Options> {
  /** Throws `E_OPTION` for options that are not valid, and `E_PLUGIN` when `create` makes nothing that decides. */
  (options: Options): Plugin
  /** The same by what is written on the command line or in a file. */
  load(text: PluginText): Plugin
}

/**
 * Defines a plugin with options that are checked when it is made: whoever gets one wrong learns at start which, and what it
 * should be.
 *
 * ```ts
 * export default definePlugin({
 *   name: 'office',
 *   options: z.object({ url: z.string().describe('the URL of a SOCKS proxy') }),
 *   argument: 'url',
 *   create({ url }) {
 *     const upstream = socksUpstream(url)
 *     return { upstreams: [upstream], decide: ({ destination }) => (destination.port === 443 ? via(upstream) : undefined) }
 *   },
 * })
 * ```
 */
export function definePlugin<Schema extends z.ZodObject>({
  name,
  options,
  argument,
  create,
}: PluginDefinition<Schema>): DefinedPlugin<z.input<Schema>> {
  const make = (given: unknown): Plugin => {
    const made = create(validOptions(name, options, given))
    const { decide, upstreams, close } =
      typeof made === 'function' ? { decide: made } : (Object(made) as Made)
    if (typeof decide !== 'function')
      throw new TproxyError('E_PLUGIN', `plugin ${name}: create made nothing that decides`, {
        hint: 'return a function from a connection to a verdict, or { decide, upstreams, close }, and no promise',
      })
    const plugin = Object.defineProperty((connection: Connection) => decide(connection), 'name', {
      value: name,
    })
    return Object.assign(plugin, { ...(upstreams && { upstreams }), ...(close && { close: () => close() }) })
  }
  const load = ({ argument: text, options: given = {} }: PluginText): Plugin => {
    if (text === undefined) return make(given)
    if (argument === undefined)
      throw new TproxyError('E_OPTION', `${name} takes no argument`, {
        hint: 'give its options in a configuration file: plugins: [{ name: …, options: { … } }]',
      })
    if (argument in given)
      throw new TproxyError('E_OPTION', `option ${argument} of ${name} is given twice`, {
        hint: 'as the argument, or among the options',
      })
    return make({ ...given, [argument]: text })
  }
  return Object.assign(make, { load })
}
