import { styleText } from 'node:util'
import { formatBytes, formatDuration } from '../quantities.ts'
import { printable, scrub } from '../scrub.ts'
import { place, type SortKey, sorted, type Traffic, way, where, who } from './traffic.ts'

/** What is shown of it, and where the cursor stands. */
export interface View {
  readonly sort: SortKey
  readonly reverse: boolean
  /** The connection under the cursor. */
  readonly selected: Traffic['id'] | undefined
  /** Asked, or told, in place of the keys. */
  readonly message: string | undefined
}

interface Column {
  readonly key: SortKey
  readonly head: string
  readonly text: (row: Traffic) => string
  /** The least; texts share what is left. */
  readonly width: number
  readonly grows?: number
}

/** `1.2k`: in five columns. */
const short = (bytes: number) => formatBytes(bytes).replace(/ (.?)B$/, '$1')
const age = (ms: number) => (ms < 999.5 ? '0s' : formatDuration(ms).replaceAll(/\.\d(?= s)| /g, ''))

const columns: readonly Column[] = [
  { key: 'program', head: 'PROGRAM', text: who, width: 13, grows: 24 },
  { key: 'destination', head: 'DESTINATION', text: where, width: 17, grows: 60 },
  { key: 'via', head: 'VIA', text: way, width: 10, grows: 40 },
  { key: 'carried', head: 'BY', text: ({ carried }) => carried, width: 6, grows: 6 },
  { key: 'up', head: '↑/s', text: ({ rate }) => (rate ? short(rate.sent) : ''), width: 5 },
  { key: 'down', head: '↓/s', text: ({ rate }) => (rate ? short(rate.received) : ''), width: 5 },
  { key: 'sent', head: '↑', text: ({ bytes }) => short(bytes.sent), width: 5 },
  { key: 'received', head: '↓', text: ({ bytes }) => short(bytes.received), width: 5 },
  {
    key: 'age',
    head: 'AGE',
    text: ({ durationMs }) => (durationMs === undefined ? '' : age(durationMs)),
    width: 6,
  },
]

const keys = 'q quit  ↑↓ select  k close  ←→ sort  r reverse'

/** As many lines as fit, none of more characters than the terminal has columns. */
export function table(
  rows: readonly Traffic[],
  total: number,
  view: View,
  size: { columns: number; rows: number },
): string[] {
  const shown = sorted(rows, view.sort, view.reverse)
  const selected = shown.findIndex(({ id }) => id === view.selected)
  const detail = shown[selected] === undefined ? [] : [describe(shown[selected])]
  const height = Math.max(1, size.rows - 2 - detail.length)
  const from = Math.max(0, Math.min(selected - height + 1, shown.length - height))
  const widths = spread(size.columns)
  const line = (cell: (column: Column) => string) =>
    cut(
      columns
        .map((column, index) => fit(cell(column), widths[index] ?? 0, column.grows === undefined))
        .join(' '),
      size.columns,
    )
  const mark = (key: SortKey) => (key === view.sort ? (view.reverse ? '▴' : '▾') : '')
  const body = shown.slice(from, from + height).map((row, index) => {
    const text = line(({ text: of }) => safe(of(row)))
    return from + index === selected ? style('inverse', text) : text
  })
  const many = `${total} connection${total === 1 ? '' : 's'}`
  const more = rows.length < total ? ` (the newest ${rows.length} are shown)` : ''
  return [
    style(
      'bold',
      line(({ key, head }) => `${head}${mark(key)}`),
    ),
    ...body,
    ...Array.from({ length: height - body.length }, () => ''),
    ...detail.map((text) => cut(safe(text), size.columns)),
    cut(view.message === undefined ? `${many}${more}  ${keys}` : safe(view.message), size.columns),
  ]
}

/** All that the columns have no room for. */
function describe(row: Traffic): string {
  const { id, name, destination, rule, notSpliced } = row
  return [
    `${id}  ${who(row)} → ${place(destination)}${name === undefined ? '' : ` (${name})`}`,
    way(row),
    ...(rule === undefined ? [] : [`rule ${rule}`]),
    ...(notSpliced === undefined ? [] : [`relayed: ${notSpliced}`]),
  ].join('  ')
}

/** What is left over goes to the texts, in turn, as far as they want it. */
function spread(width: number): number[] {
  const widths = columns.map((column) => column.width)
  let left = width - widths.reduce((sum, each) => sum + each + 1, -1)
  for (let grew = true; left > 0 && grew; ) {
    grew = false
    for (const [index, { grows = 0 }] of columns.entries())
      if (left > 0 && (widths[index] ?? 0) < grows) {
        widths[index] = (widths[index] ?? 0) + 1
        left--
        grew = true
      }
  }
  return widths
}

const safe = (text: string) => printable(scrub(text))
const style = (format: 'bold' | 'inverse', text: string) => styleText(format, text, { validateStream: false })
const cut = (text: string, width: number) => (text.length <= width ? text : `${text.slice(0, width - 1)}…`)
const fit = (text: string, width: number, right: boolean) =>
  right ? cut(text, width).padStart(width) : cut(text, width).padEnd(width)
