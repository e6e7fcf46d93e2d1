import { isDeepStrictEqual } from 'node:util'
import { type Rules, reason, TproxyError } from '@tproxy/core'
import type { ConfigFile } from './config/schema.ts'
import type { Reloaded } from './control/protocol.ts'
import type { Options } from './options.ts'
import { Problems } from './problems.ts'
import type { Report } from './report.ts'
import { readFiles, type Settings } from './settings.ts'

/** Reads the files again and puts their rules in force. Rejects, after a warning, with all as it was. */
export type Reload = (how: { reset: boolean }) => Promise<Reloaded>

/** Whether there is anything to read again. */
export function hasFiles({ config, rules }: Options): boolean {
  return config !== undefined || rules.some((source) => 'file' in source)
}

export function makeReload(
  rules: Rules,
  { options, settings, report }: { options: Options; settings: Settings; report: Report },
  replaced: () => void,
): Reload {
  return async ({ reset }) => {
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
      replaced()
      return reloaded
    } catch (error) {
      for (const problem of error instanceof Problems ? error.problems : [reason(error)])
        report.warning(`the rules stay as they are: ${problem}`)
      throw error
    }
  }
}

function changedKeys(before: ConfigFile, after: ConfigFile): string[] {
  const reloadable: readonly string[] = ['rules', 'default-action']
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]) as Set<keyof ConfigFile>
  return [...keys].filter((key) => !reloadable.includes(key) && !isDeepStrictEqual(before[key], after[key]))
}
