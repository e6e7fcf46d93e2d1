import { TproxyError } from '@tproxy/core'
import type { Given } from '../invocation.ts'

/** `tproxy-run check [FILE]` */
export interface CheckForm {
  readonly form: 'check'
  readonly file: string
  readonly json: boolean
}

/** The file of the service, where none is named. Throws `E_OPTION`. */
export function parseCheck(
  [file = '/etc/tproxy/tproxy.yaml', ...rest]: readonly string[],
  given: readonly Given[],
): CheckForm {
  if (rest.length > 0)
    throw new TproxyError('E_OPTION', 'check takes one file', { hint: 'see tproxy-run --help' })
  return { form: 'check', file, json: given.some(({ name }) => name === 'json') }
}
