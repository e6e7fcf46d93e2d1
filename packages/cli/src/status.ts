import type { TransparentProxy } from '@tproxy/core'
import { askOnce } from './control/client.ts'
import type { Status } from './control/protocol.ts'
import type { Ending } from './ending.ts'
import { formatBytes, formatDuration } from './quantities.ts'
import { printable } from './scrub.ts'

/** What a running tproxy-run says of itself. */
export function statusOf({ carried, adopted, rules, fastpath }: TransparentProxy): Status {
  return {
    pid: process.pid,
    upMs: Math.round(performance.now()),
    carried,
    adopted: adopted.filter(({ lasts }) => lasts).length,
    rules: rules?.list.rules.length ?? 0,
    fastpath: {
      mode: fastpath.mode,
      ...(fastpath.problem !== undefined && { problem: fastpath.problem }),
      ...(fastpath.counts && { counts: numbers(fastpath.counts()) }),
    },
    memory: process.memoryUsage.rss(),
  }
}

/** `tproxy-run status`. */
export async function showStatus({ pid, json }: { pid?: number; json: boolean }): Promise<Ending> {
  const status = await askOnce<Status>({ request: 'status' }, pid)
  console.log(json ? JSON.stringify(status) : describeStatus(status))
  return { code: 0 }
}

export function describeStatus(status: Status): string {
  const { pid, upMs, carried, adopted, rules, fastpath, memory } = status
  const lines = [
    ['process', `${pid}, up ${formatDuration(upMs)}, ${formatBytes(memory)}`],
    ['connections', `${carried.splice + carried.relay + adopted}`],
    ['  in the kernel', `${carried.splice}`],
    ['  relayed', `${carried.relay}`],
    ...(adopted === 0 ? [] : [['  adopted', `${adopted}, in the kernel`]]),
    ['rules', `${rules}`],
    ['fastpath', describeFastpath(fastpath)],
  ]
  return lines.map(([name = '', value = '']) => `${name.padEnd(16)}${value}`).join('\n')
}

function describeFastpath({ mode, problem, counts }: Status['fastpath']): string {
  if (problem !== undefined) return `refused: ${printable(problem)}`
  return counts === undefined ? mode : `${mode}, ${counts['joined'] ?? 0} connections joined`
}

const numbers = (counts: Readonly<Record<string, bigint>>) =>
  Object.fromEntries(Object.entries(counts).map(([name, count]) => [name, Number(count)]))
