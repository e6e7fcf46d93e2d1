import { TproxyError, type TraceTarget } from '@tproxy/core'
import type { Given } from '../invocation.ts'
import type { Flags } from '../options.ts'
import { common, statusFlags } from '../rules/invocation.ts'
import { parseEnd } from '../rules/packet.ts'

/** `tproxy-run trace DESTINATION` */
export interface TraceForm {
  readonly form: 'trace'
  readonly target: TraceTarget
  /** How many lines; undefined: until it is ended. */
  readonly count: number | undefined
  readonly pid?: number
  readonly json: boolean
}

export const traceFlags: Flags = {
  count: { type: 'string', value: 'N', says: 'ends after so many lines' },
  ...statusFlags,
}

/** Throws `E_OPTION`. */
export function parseTrace(words: readonly string[], given: readonly Given[]): TraceForm {
  const [word, ...rest] = words
  if (word === undefined || rest.length > 0)
    throw new TproxyError('E_OPTION', 'trace needs one destination', {
      hint: 'such as 203.0.113.10, 203.0.113.10:443 or [2001:db8::1]:443',
    })
  const { address, port } = parseEnd(word)
  const count = given.findLast(({ name }) => name === 'count')?.value
  if (count !== undefined && !/^[1-9]\d*$/.test(count))
    throw new TproxyError('E_OPTION', `--count is "${count}"`, { hint: 'a number from 1' })
  return {
    form: 'trace',
    target: { address, ...(port !== undefined && { port }) },
    count: count === undefined ? undefined : Number(count),
    ...common(given),
  }
}
