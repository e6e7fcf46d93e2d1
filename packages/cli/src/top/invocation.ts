import { nearest, TproxyError } from '@tproxy/core'
import type { Given } from '../invocation.ts'
import type { Flags } from '../options.ts'
import { misfitDuration, parseDuration } from '../quantities.ts'
import { common, statusFlags } from '../rules/invocation.ts'
import { type SortKey, sortKeys } from './traffic.ts'

/** `tproxy-run top` */
export interface TopForm {
  readonly form: 'top'
  readonly intervalMs: number
  /** How many snapshots; undefined: until it is ended. */
  readonly count: number | undefined
  readonly sort: SortKey
  readonly pid?: number
  readonly json: boolean
}

export const topFlags: Flags = {
  ...statusFlags,
  interval: { type: 'string', value: 'T', says: 'between looks; default 1s' },
  count: { type: 'string', value: 'N', says: 'ends after so many' },
  sort: { type: 'string', value: 'KEY', complete: Object.keys(sortKeys), says: 'by what; default down' },
}

/** Who runs need not count all the time. */
const leastIntervalMs = 100

/** Throws `E_OPTION`. */
export function parseTop(words: readonly string[], given: readonly Given[]): TopForm {
  const value = (name: string) => given.findLast((option) => option.name === name)?.value
  if (words.length > 0) throw new TproxyError('E_OPTION', 'top takes no arguments')
  const interval = value('interval') ?? '1s'
  const expected = misfitDuration(interval, leastIntervalMs)
  if (expected !== undefined)
    throw new TproxyError('E_OPTION', `--interval is "${interval}"`, { hint: expected })
  const count = value('count')
  if (count !== undefined && !/^[1-9]\d*$/.test(count))
    throw new TproxyError('E_OPTION', `--count is "${count}"`, { hint: 'a number from 1' })
  const sort = value('sort') ?? 'down'
  if (!Object.hasOwn(sortKeys, sort)) {
    const near = nearest(sort, Object.keys(sortKeys))
    throw new TproxyError('E_OPTION', `--sort is "${sort}"`, {
      hint: near === undefined ? Object.keys(sortKeys).join(', ') : `did you mean ${near}?`,
    })
  }
  return {
    form: 'top',
    intervalMs: parseDuration(interval) ?? leastIntervalMs,
    count: count === undefined ? undefined : Number(count),
    sort: sort as SortKey,
    ...common(given),
  }
}
