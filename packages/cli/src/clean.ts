import { clean } from '@tproxy/core'
import type { Ending } from './ending.ts'
import type { Options } from './options.ts'
import { requirePrivileges } from './privileges.ts'

/** `tproxy-run clean`. */
export async function cleanUp({ json }: Pick<Options, 'json'>): Promise<Ending> {
  requirePrivileges()
  const { removed, living } = await clean()
  console.log(json ? JSON.stringify({ event: 'clean', removed, living }) : describeCleaning(removed, living))
  return { code: 0 }
}

export function describeCleaning(removed: number, living: readonly number[]): string {
  const what = removed === 0 ? 'nothing was left behind' : `removed what was left behind (${removed})`
  if (living.length === 0) return what
  const pids = `${living.length === 1 ? 'process' : 'processes'} ${living.join(', ')}`
  return `${what}; still running and left alone: ${pids}`
}
