import { clean } from '@tproxy/core'
import type { Ending } from './ending.ts'
import { jsonLine } from './json-line.ts'
import type { Options } from './options.ts'
import { requirePrivileges } from './privileges.ts'

/** `tproxy-run clean`. */
export async function cleanUp({ json }: Pick<Options, 'json'>): Promise<Ending> {
  requirePrivileges()
  const cleaned = await clean()
  console.log(json ? jsonLine({ event: 'clean', ...cleaned }) : describeCleaning(cleaned))
  return { code: 0 }
}

export function describeCleaning({ removed, ended, living }: Awaited<ReturnType<typeof clean>>): string {
  const found = [
    ...(removed === 0 ? [] : [`removed what was left behind (${removed})`]),
    ...(ended === 0 ? [] : [`reset the connections that were kept (${ended})`]),
  ]
  const what = found.length === 0 ? 'nothing was left behind' : found.join(', ')
  if (living.length === 0) return what
  const pids = `${living.length === 1 ? 'process' : 'processes'} ${living.join(', ')}`
  return `${what}; still running and left alone: ${pids}`
}
