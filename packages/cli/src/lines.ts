import {
  type Adopted,
  type Endpoint,
  formatEndpoint,
  protocols,
  type RuleEvent,
  reason,
  type Session,
  type SessionEnd,
} from '@tproxy/core'
import type { Reloaded } from './control/protocol.ts'
import { formatBytes, formatDuration } from './quantities.ts'
import type { Ready } from './report.ts'
import { clean } from './scrub.ts'

/** Makes a piece of a line fit to be shown, and styles it where colour is wanted. */
export type Paint = (
  style: 'plain' | 'dim' | 'bold' | 'red' | 'green' | 'yellow' | 'cyan',
  text: string,
) => string

/** Where there are no styles. */
export const unstyled: Paint = (_style, text) => clean(text)

/** Wide enough for most, so that lines stand in columns; longer ones push the rest to the right. */
const width = { who: 15, destination: 21, way: 6, size: 7, duration: 7 }

/** `curl[4711] → 203.0.113.10:443  via socks5://127.0.0.1:1080 (socks)  ↑ 1.2 kB ↓ 14 kB  35 ms  closed` */
export function sessionLine(session: Session, paint: Paint): string {
  const { connection, bytes, durationMs, end } = session
  const { process, source, destination } = connection
  const who = process === undefined ? formatEndpoint(source) : `${process.name}[${process.pid}]`
  const name = connection.peeked?.name
  const to = `${formatEndpoint(destination)}${name === undefined ? '' : ` (${name})`}`
  return [
    `${pad(paint('bold', who), who, width.who)} → ${pad(paint('plain', to), to, width.destination)}`,
    way(session, paint),
    `↑ ${formatBytes(bytes.sent).padStart(width.size)}  ↓ ${formatBytes(bytes.received).padStart(width.size)}`,
    formatDuration(durationMs).padStart(width.duration),
    ending(end, paint),
  ].join('  ')
}

/** The same for one whose beginning an earlier process saw. */
export function adoptedLine(
  { source, destination, upstream, bytes }: Adopted,
  end: SessionEnd,
  paint: Paint,
): string {
  const [from, to, by] = [source, destination, upstream].map(formatEndpoint) as [string, string, string]
  return [
    `${pad(paint('bold', from), from, width.who)} → ${pad(paint('plain', to), to, width.destination)}`,
    paint('cyan', `${by === to ? 'direct' : `via ${by}`} (adopted)`),
    `↑ ${formatBytes(bytes.sent).padStart(width.size)}  ↓ ${formatBytes(bytes.received).padStart(width.size)}`,
    ending(end, paint),
  ].join('  ')
}

function way({ verdict, plugin, upstream }: Session, paint: Paint): string {
  const by = plugin === undefined ? '' : ` (${plugin})`
  const text = `${verdict.kind === 'via' ? `via ${upstream}` : verdict.kind}${by}`
  const style = { via: 'cyan', direct: 'dim', drop: 'yellow' } as const
  return pad(paint(style[verdict.kind], text), text, width.way)
}

function ending(end: Session['end'], paint: Paint): string {
  if (end === undefined) return ''
  if (end.how === 'closed' || end.how === 'dropped' || end.how === 'kept') return paint('dim', end.how)
  if (end.how === 'reset')
    return paint('yellow', `reset by ${end.by === 'client' ? 'the program' : 'the other side'}`)
  return paint('red', end.error === undefined ? end.how : `${end.how}: ${reason(end.error)}`)
}

export function readyLine(ready: Ready, paint: Paint): string {
  const what = `${ready.cgroup === undefined ? 'all programs' : 'the command'} on ${ready.interfaces.join(', ')}`
  const plugins = ready.plugins.map(({ name, upstreams }) =>
    upstreams.length === 0 ? name : `${name} (${upstreams.join(', ')})`,
  )
  const rules = ready.rules === 0 ? [] : [`${ready.rules} rule${ready.rules === 1 ? '' : 's'}`]
  const chain = [...rules, ...plugins, ready.default].join(' → ')
  const adopted = ready.adopted === 0 ? '' : `  (${ready.adopted} adopted)`
  return `${paint('green', 'ready')}  ${paint('plain', what)}: ${paint('cyan', chain)}${paint('plain', adopted)}`
}

/** `rule 2 drop  curl[4711] → 203.0.113.10:53  udp  wan0  57 B` */
export function ruleLine(event: RuleEvent, paint: Paint): string {
  const { rule, action, protocol, source, destination, process, bytes } = event
  const name = rule === 0 ? 'default' : `rule ${rule}`
  const who = process === undefined ? place(source) : `${process.name}[${process.pid}]`
  const to = place(destination)
  return [
    `${paint('yellow', name)} ${paint('plain', action)}`,
    `${pad(paint('bold', who), who, width.who)} → ${pad(paint('plain', to), to, width.destination)}`,
    protocolName(protocol),
    paint('plain', event.interface ?? ''),
    formatBytes(bytes),
  ].join('  ')
}

const place = (at: Endpoint) => (at.port === 0 ? at.address : formatEndpoint(at))

/** As rules name it. */
export function protocolName(number: number): string {
  return Object.entries(protocols).find(([, known]) => known === number)?.[0] ?? `protocol ${number}`
}

export function reloadedLine(
  { rules, default: fallback, plugins, verdict, restart }: Reloaded,
  paint: Paint,
): string {
  const chain = plugins.length === 0 ? '' : `: ${[...plugins, verdict].join(' → ')}`
  const what = `${rules} rule${rules === 1 ? '' : 's'} → ${fallback}${chain}`
  const rest = restart.length === 0 ? '' : `  ${paint('yellow', needsRestart(restart))}`
  return `${paint('green', 'reloaded')}  ${paint('cyan', what)}${rest}`
}

export function needsRestart(keys: readonly string[]): string {
  return `changed, but only a restart puts it in force: ${keys.join(', ')}`
}

/** Pads by what is seen, not by what colours add. */
function pad(painted: string, text: string, to: number): string {
  return painted + ' '.repeat(Math.max(0, to - text.length))
}
