import { isDeepStrictEqual } from 'node:util'
import { type Rules, reason, TproxyError } from '@tproxy/core'
import type { ConfigFile } from './config/schema.ts'
import type { Reloaded } from './control/protocol.ts'
import { reloadedLine, unstyled } from './lines.ts'
import type { Options } from './options.ts'
import { Problems } from './problems.ts'
import type { Report } from './report.ts'
import { clean } from './scrub.ts'
import type { Service } from './service.ts'
import { readFiles, type Settings } from './settings.ts'

/** Reads the files again and puts their rules in force. Rejects, after a warning, with all as it was. */
export type Reload = (how: { reset: boolean }) => Promise<Reloaded>

/** Whether there is anything to read again. */
export function hasFiles({ config, rules }: Options): boolean {
  return config !== undefined || rules.some((source) => 'file' in source)
}

/** Of a reload: by whose options, and who hears of it. */
export interface Occasion {
  readonly options: Options
  readonly settings: Settings
  readonly report: Report
  readonly service?: Service
}

export function makeReload(
  rules: Rules,
  { options, settings, report, service }: Occasion,
  replaced: () => void,
): Reload {
  return async ({ reset }) => {
    service?.reloading()
    try {
      if (!hasFiles(options))
        throw new TproxyError('E_OPTION', 'there is no file to read again', {
          hint: 'it was started without --config and --rules',
        })
      const read = await readFiles(options)
      rules.replace(read.rules, { default: read.defaultAction, reset })
      const reloaded = {
        rules: read.rules.length,
        default: rules.list.default,
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
}

function changedKeys(before: ConfigFile, after: ConfigFile): string[] {
  const reloadable: readonly string[] = ['rules', 'default-action']
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]) as Set<keyof ConfigFile>
  return [...keys].filter((key) => !reloadable.includes(key) && !isDeepStrictEqual(before[key], after[key]))
}
