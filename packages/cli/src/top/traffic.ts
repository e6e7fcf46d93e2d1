import { endpoint, formatEndpoint } from '@tproxy/core'
import type { SessionRow, Sessions } from '../control/protocol.ts'

/** A connection, and how fast its bytes move. */
export interface Traffic extends SessionRow {
  /** In bytes a second; undefined when it was not there before. */
  readonly rate?: { readonly sent: number; readonly received: number }
}

/** What was moved since the snapshot before. */
export function traffic({ atMs, sessions }: Sessions, before: Sessions | undefined): Traffic[] {
  const known = new Map(before?.sessions.map(({ id, bytes }) => [id, bytes]))
  const seconds = (atMs - (before?.atMs ?? atMs)) / 1000
  return sessions.map((row) => {
    const then = known.get(row.id)
    if (then === undefined || seconds <= 0) return row
    const rate = (way: 'sent' | 'received') => Math.round((row.bytes[way] - then[way]) / seconds)
    return { ...row, rate: { sent: rate('sent'), received: rate('received') } }
  })
}

export const who = ({ process, source }: SessionRow): string =>
  process === undefined ? place(source) : `${process.name}[${process.pid}]`

/** The name first, for an address is longer and says less. */
export const where = ({ name, destination }: SessionRow): string =>
  name === undefined ? place(destination) : `${name}:${destination.port}`

/** As events say it: `via socks5://127.0.0.1:1080 (socks)`. */
export const way = ({ verdict, plugin, upstream }: SessionRow): string =>
  `${verdict === 'via' ? `via ${upstream}` : verdict}${plugin === undefined ? '' : ` (${plugin})`}`

export const place = ({ address, port }: SessionRow['destination']): string =>
  formatEndpoint(endpoint(address, port))

export type SortKey =
  | 'program'
  | 'destination'
  | 'via'
  | 'carried'
  | 'up'
  | 'down'
  | 'sent'
  | 'received'
  | 'age'

/** What connections are sorted by: texts from A, numbers from the largest. */
export const sortKeys: Readonly<Record<SortKey, (row: Traffic) => string | number>> = {
  program: who,
  destination: where,
  via: way,
  carried: ({ carried }) => carried,
  up: ({ rate }) => rate?.sent ?? 0,
  down: ({ rate }) => rate?.received ?? 0,
  sent: ({ bytes }) => bytes.sent,
  received: ({ bytes }) => bytes.received,
  age: ({ durationMs }) => durationMs ?? Number.POSITIVE_INFINITY,
}

/** Those that are alike stay in the order of their beginning. */
export function sorted(rows: readonly Traffic[], key: SortKey, reverse = false): Traffic[] {
  const of = sortKeys[key]
  const compare = (a: Traffic, b: Traffic) => {
    const [x, y] = [of(a), of(b)]
    if (x === y) return 0
    const larger = x > y ? 1 : -1
    return typeof x === 'number' ? -larger : larger
  }
  return rows.toSorted(reverse ? (a, b) => compare(b, a) : compare)
}
