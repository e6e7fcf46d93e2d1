import { styleText } from 'node:util'
import { inspect } from '@tproxy/core'
import type { Ending } from '../ending.ts'
import { jsonLine } from '../json-line.ts'
import type { Options } from '../options.ts'
import { printable } from '../scrub.ts'
import { readSettings } from '../settings.ts'
import type { Check } from './check.ts'
import { checkFastpath } from './fastpath.ts'
import { firewallChecks } from './firewall.ts'
import { kernelChecks } from './kernel.ts'
import { networkChecks } from './network.ts'
import { toolChecks } from './tools.ts'

/** `tproxy-run doctor`: what this machine lacks. Changes nothing. Ends with 1 when something is missing. Throws {@link Problems}. */
export async function doctor(options: Options): Promise<Ending> {
  const { routing, fastpath, interfaces = 'all' } = await readSettings(options)
  const inspection = inspect(routing)
  const checks = [
    ...kernelChecks(),
    ...(await toolChecks(inspection)),
    await checkFastpath(inspection, fastpath),
    ...networkChecks(inspection, interfaces),
    ...firewallChecks(),
  ]
  const colour = process.stdout.isTTY && !process.env['NO_COLOR']
  for (const check of checks)
    console.log(options.json ? jsonLine({ event: 'check', ...check }) : describe(check, colour))
  return { code: checks.some(({ status }) => status === 'missing') ? 1 : 0 }
}

const styles = { ok: 'green', warn: 'yellow', missing: 'red' } as const

/** `ok       kernel              6.12.0`, and what to do on a line of its own. */
export function describe({ name, status, detail, remedy }: Check, colour: boolean): string {
  const word = colour ? styleText(styles[status], status, { validateStream: false }) : status
  const line = `${word}${' '.repeat(9 - status.length)}${name.padEnd(22)}${printable(detail)}`
  return remedy === undefined ? line : `${line}\n${' '.repeat(31)}→ ${printable(remedy)}`
}
