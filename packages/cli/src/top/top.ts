import { once } from 'node:events'
import { TproxyError } from '@tproxy/core'
import { ask } from '../control/client.ts'
import type { Sessions } from '../control/protocol.ts'
import type { Ending } from '../ending.ts'
import { jsonLine } from '../json-line.ts'
import { scrub } from '../scrub.ts'
import type { TopForm } from './invocation.ts'
import { showScreen } from './screen.ts'
import { sorted, type Traffic, traffic } from './traffic.ts'

/** `tproxy-run top`: a table on a terminal, else a line of JSON each time. */
export function top(options: TopForm, fatal: Promise<never>): Promise<Ending> {
  const isScreen = process.stdout.isTTY && process.stdin.isTTY && !options.json
  return isScreen ? showScreen(options, fatal) : Promise.race([writeLines(options), fatal])
}

async function writeLines(options: TopForm): Promise<Ending> {
  const { stdout } = process
  // Who read enough, such as head(1), has ended us.
  stdout.once('error', () => process.exit(0))
  for await (const { rows, total } of watch(options)) {
    const event = {
      event: 'sessions',
      time: new Date().toISOString(),
      total,
      sessions: sorted(rows, options.sort),
    }
    if (!stdout.write(`${jsonLine(event, scrub)}\n`)) await once(stdout, 'drain')
  }
  return { code: 0 }
}

/** What the one that runs says, as often as was asked for. Throws when it ends. */
export async function* watch({
  intervalMs,
  count,
  pid,
}: Pick<TopForm, 'intervalMs' | 'count' | 'pid'>): AsyncGenerator<{ rows: Traffic[]; total: number }> {
  let before: Sessions | undefined
  let left = count ?? Number.POSITIVE_INFINITY
  for await (const now of ask<Sessions>({ request: 'sessions', intervalMs }, pid)) {
    yield { rows: traffic(now, before), total: now.total }
    if (--left <= 0) return
    before = now
  }
  throw new TproxyError('E_SYSTEM', 'top: the tproxy-run that was watched has ended')
}
