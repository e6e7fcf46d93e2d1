import { once } from 'node:events'
import { TproxyError } from '@tproxy/core'
import { ask } from '../control/client.ts'
import type { TraceLine } from '../control/protocol.ts'
import type { Ending } from '../ending.ts'
import { jsonLine } from '../json-line.ts'
import { scrub } from '../scrub.ts'
import type { TraceForm } from './invocation.ts'
import { lines } from './lines.ts'

/** `tproxy-run trace DESTINATION`: until it is ended, or so many lines were told, or nobody reads them. */
export async function trace({ target, count, pid, json }: TraceForm): Promise<Ending> {
  const { stdout } = process
  // Who read enough, such as head(1), has ended us, and with us what tracing costs.
  stdout.once('error', () => process.exit(0))
  const describe = lines()
  let left = count ?? Number.POSITIVE_INFINITY
  for await (const line of ask<TraceLine>({ request: 'trace', target }, pid)) {
    const texts = json ? [jsonLine(withTime(line), scrub)] : describe(line)
    if (!stdout.write(`${texts.join('\n')}\n`)) await once(stdout, 'drain')
    if (line.event !== 'tracing' && --left <= 0) return { code: 0 }
  }
  throw new TproxyError('E_SYSTEM', 'trace: the tproxy-run that was watched has ended')
}

/** With the time as all events have it. */
function withTime(line: TraceLine): object {
  if (line.event === 'tracing') return line
  const { event, timeMs, ...rest } = line
  return { event, time: new Date(timeMs).toISOString(), timeMs, ...rest }
}
