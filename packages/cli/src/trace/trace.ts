import { TproxyError } from '@tproxy/core'
import { ask } from '../control/client.ts'
import type { TraceLine } from '../control/protocol.ts'
import type { Ending } from '../ending.ts'
import { Output } from '../output.ts'
import { scrub } from '../scrub.ts'
import type { TraceForm } from './invocation.ts'
import { lines } from './lines.ts'

/** `tproxy-run trace DESTINATION`: until it is ended, or so many lines were told. */
export async function trace({ target, count, pid, json }: TraceForm): Promise<Ending> {
  const output = new Output(1)
  const describe = lines(output.colour)
  let left = count ?? Number.POSITIVE_INFINITY
  for await (const line of ask<TraceLine>({ request: 'trace', target }, pid)) {
    if (json) output.line(JSON.stringify(withTime(line), clean))
    else for (const text of describe(line)) output.line(text)
    if (line.event !== 'tracing' && --left <= 0) {
      await output.end()
      return { code: 0 }
    }
  }
  throw new TproxyError('E_SYSTEM', 'trace: the tproxy-run that was watched has ended')
}

const clean = (_key: string, value: unknown) => (typeof value === 'string' ? scrub(value) : value)

/** With the time as all events have it. */
function withTime(line: TraceLine): object {
  if (line.event === 'tracing') return line
  const { event, timeMs, ...rest } = line
  return { event, time: new Date(timeMs).toISOString(), timeMs, ...rest }
}
