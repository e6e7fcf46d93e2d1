import type { TransparentProxy } from '@tproxy/core'
import { askOnce } from './control/client.ts'
import type { Status } from './control/protocol.ts'
import type { Ending } from './ending.ts'
import { jsonLine } from './json-line.ts'
import { formatBytes, formatDuration } from './quantities.ts'
import { printable } from './scrub.ts'

/** What a running tproxy-run says of itself. */
export function statusOf({ carried, adopted, memories, fastpath, rules }: TransparentProxy): Status {
  const { mode, problem, counts } = fastpath
  return {
    pid: process.pid,
    upMs: Math.round(performance.now()),
    carried,
    adopted: adopted.filter(({ lasts }) => lasts).length,
    recalled: memories?.recalled ?? 0,
    fastpath: {
      mode,
      ...(problem !== undefined && { problem }),
      ...(counts !== undefined && { redirected: Number(counts()['redirected']) }),
    },
    rules: rules?.list.rules.length ?? 0,
    memory: process.memoryUsage.rss(),
  }
}

/** `tproxy-run status`. */
export async function showStatus({ pid, json }: { pid?: number; json: boolean }): Promise<Ending> {
  const status = await askOnce<Status>({ request: 'status' }, pid)
  console.log(json ? jsonLine(status) : describeStatus(status))
  return { code: 0 }
}

export function describeStatus({
  pid,
  upMs,
  carried,
  adopted,
  recalled,
  fastpath,
  rules,
  memory,
}: Status): string {
  const lines = [
    ['process', `${pid}, up ${formatDuration(upMs)}, ${formatBytes(memory)}`],
    ['connections', `${carried.splice + carried.relay + adopted}`],
    ['  in the kernel', `${carried.splice}`],
    ['  relayed', `${carried.relay}`],
    ...(adopted === 0 ? [] : [['  adopted', `${adopted}, in the kernel`]]),
    ...(recalled === 0 ? [] : [['never here', `${recalled}, by verdicts that the kernel remembers`]]),
    ['fastpath', describeFastpath(fastpath)],
    ['rules', `${rules}`],
  ]
  return lines.map(([name = '', value = '']) => `${name.padEnd(16)}${value}`).join('\n')
}

function describeFastpath({ mode, problem, redirected }: Status['fastpath']): string {
  if (redirected !== undefined) return `${mode}, ${redirected} messages`
  return problem === undefined ? mode : `${mode}: ${printable(problem)}`
}
