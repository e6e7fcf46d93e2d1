import { isDeepStrictEqual } from 'node:util'
import { type Plugin, reason, TproxyError, type TransparentProxy } from '@tproxy/core'
import type { ConfigFile } from './config/schema.ts'
import type { Reloaded } from './control/protocol.ts'
import { reloadedLine, unstyled } from './lines.ts'
import type { Options } from './options.ts'
import { type Loaded, loadPlugins } from './plugins.ts'
import { Problems } from './problems.ts'
import { decisions } from './proxy-options.ts'
import type { Report } from './report.ts'
import { clean } from './scrub.ts'
import type { Service } from './service.ts'
import { readSettings, type Settings } from './settings.ts'

/** Reads the files again and puts their plugins and rules in force. Rejects, after a warning, with all as it was. */
export type Reload = (how: { reset: boolean }) => Promise<Reloaded>

/** Whether there is anything to read again. */
export function hasFiles({ config, rules }: Options): boolean {
  return config !== undefined || rules.some((source) => 'file' in source)
}

/** Of a reload: by whose options, and who hears of it. */
export interface Occasion {
  readonly options: Options
  readonly settings: Settings
  readonly plugins: readonly Plugin[]
  readonly report: Report
  readonly service?: Service
}

export function makeReload(
  proxy: TransparentProxy,
  { options, settings, plugins, report, service }: Occasion,
  replaced: () => void,
): Reload {
  let loaded: Loaded = { choices: settings.plugins, plugins }
  const reload: Reload = async ({ reset }) => {
    service?.reloading()
    try {
      if (!hasFiles(options))
        throw new TproxyError('E_OPTION', 'there is no file to read again', {
          hint: 'it was started without --config and --rules',
        })
      const read = await readSettings(options)
      const fresh = await loadPlugins(read.plugins, process.cwd(), loaded)
      await proxy.replace({ ...decisions(read, fresh), reset })
      loaded = { choices: read.plugins, plugins: fresh }
      const reloaded = {
        rules: read.rules.length,
        default: proxy.rules?.list.default ?? 'proxy',
        plugins: fresh.map(({ name }) => name),
        verdict: read.default,
        restart: changedKeys(settings.file, read.file),
      }
      report.reloaded(reloaded)
      service?.reloaded(reloadedLine(reloaded, unstyled))
      replaced()
      return reloaded
    } catch (error) {
      const problems = error instanceof Problems ? error.problems : [reason(error)]
      for (const problem of problems) report.warning(`the rules stay as they are: ${problem}`)
      service?.reloaded(`the rules stay as they are: ${clean(problems.join('; '))}`)
      throw error
    }
  }
  // One after the other: plugins take their time to load.
  let last: Promise<unknown> = Promise.resolve()
  return (how) => {
    const done = last.then(() => reload(how))
    last = done.catch(() => {})
    return done
  }
}

function changedKeys(before: ConfigFile, after: ConfigFile): string[] {
  const reloadable: readonly string[] = ['plugins', 'rules', 'default-action', 'default-verdict']
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]) as Set<keyof ConfigFile>
  return [...keys].filter((key) => !reloadable.includes(key) && !isDeepStrictEqual(before[key], after[key]))
}
