import { styleText } from 'node:util'
import type { SessionRow, TraceLine } from '../control/protocol.ts'
import { protocolName } from '../lines.ts'
import { formatBytes } from '../quantities.ts'
import { clean, printable } from '../scrub.ts'

type Step = Extract<TraceLine, { event: 'step' }>

/** What a decision means at a place in the order of hooks. */
const meanings: Readonly<Record<Step['decision'], string>> = {
  next: 'on',
  sent: 'sent',
  redirected: 'redirected',
  dropped: 'dropped',
}

const styles = { next: 'dim', sent: 'green', redirected: 'cyan', dropped: 'yellow' } as const

/** Makes lines for people, one of which is about what was lost, where something was. */
export function lines(): (line: TraceLine) => string[] {
  let number = 0
  return (line) => {
    if (line.event === 'tracing') {
      const { address, port, pid } = line
      return [
        styleText('dim', `tracing ${place({ address, port: port ?? 0 })} in process ${pid}; ^C ends it`),
      ]
    }
    if (line.event !== 'step')
      return [`${clock(line.timeMs)}  ${styleText('bold', clean(`session ${story(line)}`))}`]
    const lost = line.number - number - 1
    number = line.number
    const text = stepLine(line, (decision) => styleText(styles[decision], meanings[decision].padEnd(10)))
    return lost === 0 ? [text] : [styleText('red', `${lost} steps were lost: there were too many`), text]
  }
}

function stepLine(step: Step, decided: (decision: Step['decision']) => string): string {
  const { source, destination, became, decision, reasons, rule } = step
  const kind = (flags: readonly string[]) =>
    flags.length > 0 ? flags.join(',') : protocolName(step.protocol)
  const by = rule === undefined ? [] : [rule === 0 ? 'default' : `rule ${rule}`]
  const why =
    [
      ...reasons.map((reason) => reason.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)),
      ...by,
    ].join(', ') || 'not for it'
  const result =
    became && `, now ${place(became.source)} > ${place(became.destination)} ${kind(became.flags)}`
  return [
    clock(step.timeMs),
    `${printable(step.interface)} ${step.hook}`.padEnd(20),
    decided(decision),
    `${place(source)} > ${place(destination)} ${kind(step.flags)}, ${step.length} B`,
    `${why}${result ?? ''}`,
  ].join('  ')
}

function story(line: Extract<TraceLine, { event: 'session' | 'end' }>): string {
  const { id, process, verdict, plugin, upstream, name, rule, carried, notSpliced, bytes } = line.session
  if (line.event === 'end') {
    const by = carried === 'splice' ? 'in the kernel' : `relayed${notSpliced ? `: ${notSpliced}` : ''}`
    const error = line.error === undefined ? '' : `: ${line.error}`
    return `${id} ${line.how}${error}, ↑ ${formatBytes(bytes.sent)} ↓ ${formatBytes(bytes.received)}, ${by}`
  }
  const who = process === undefined ? '' : ` of ${process.name}[${process.pid}]`
  const to = verdict === 'via' ? `via ${upstream}` : verdict
  const by = [plugin, name, rule === undefined ? undefined : `rule ${rule}`].filter(Boolean).join(', ')
  return `${id}${who} ${place(line.session.source)}: ${to}${by === '' ? '' : ` (${by})`}`
}

function place({ address, port }: SessionRow['source']): string {
  if (port === 0) return address
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

/** `12:00:01.123456`, local time. */
function clock(ms: number): string {
  const date = new Date(ms)
  const parts = [date.getHours(), date.getMinutes(), date.getSeconds()]
  const micros = String(Math.floor((ms % 1000) * 1000)).padStart(6, '0')
  return `${parts.map((part) => String(part).padStart(2, '0')).join(':')}.${micros}`
}
