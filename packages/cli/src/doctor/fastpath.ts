import { type FastpathMode, type Inspection, reason } from '@tproxy/core'
import { type Check, ok, warn } from './check.ts'

/** It is off by default, so that a kernel without it lacks nothing, unless somebody asks for it. */
export async function checkFastpath(inspection: Inspection, asked: FastpathMode): Promise<Check> {
  const name = 'fastpath'
  try {
    await inspection.fastpath(asked === 'off' ? 'to-proxy' : asked)
    return ok(name, 'tried, and right here')
  } catch (error) {
    return asked === 'off'
      ? ok(name, `off, and it would not work: ${reason(error)}`)
      : warn(name, reason(error), 'leave --fastpath off; connections work without it')
  }
}
