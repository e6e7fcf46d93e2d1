import type { TransparentProxy } from '@tproxy/core'
import { askOnce } from './control/client.ts'
import type { Status } from './control/protocol.ts'
import type { Ending } from './ending.ts'
import { formatBytes, formatDuration } from './quantities.ts'

/** What a running tproxy-run says of itself. */
export function statusOf({ carried, adopted, rules }: TransparentProxy): Status {
  return {
    pid: process.pid,
    upMs: Math.round(performance.now()),
    carried,
    adopted: adopted.filter(({ lasts }) => lasts).length,
    rules: rules?.list.rules.length ?? 0,
    memory: process.memoryUsage.rss(),
  }
}

/** `tproxy-run status`. */
export async function showStatus({ pid, json }: { pid?: number; json: boolean }): Promise<Ending> {
  const status = await askOnce<Status>({ request: 'status' }, pid)
  console.log(json ? JSON.stringify(status) : describeStatus(status))
  return { code: 0 }
}

export function describeStatus({ pid, upMs, carried, adopted, rules, memory }: Status): string {
  const lines = [
    ['process', `${pid}, up ${formatDuration(upMs)}, ${formatBytes(memory)}`],
    ['connections', `${carried.splice + carried.relay + adopted}`],
    ['  in the kernel', `${carried.splice}`],
    ['  relayed', `${carried.relay}`],
    ...(adopted === 0 ? [] : [['  adopted', `${adopted}, in the kernel`]]),
    ['rules', `${rules}`],
  ]
  return lines.map(([name = '', value = '']) => `${name.padEnd(16)}${value}`).join('\n')
}
