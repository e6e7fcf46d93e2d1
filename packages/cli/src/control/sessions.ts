import {
  type Adopted,
  type Endpoint,
  formatEndpoint,
  type Session,
  TproxyError,
  type TransparentProxy,
} from '@tproxy/core'
import { map, type Observable, timer } from 'rxjs'
import type { SessionRow, Sessions } from './protocol.ts'

/** The bytes of a spliced connection cost a program run, some 2 µs: so many are listed, the newest. */
const listed = 1_000

/** Nobody may have us count all the time. */
const shortestMs = 100

/** {@link snapshot}, at once and then at every interval. */
export function snapshots(proxy: TransparentProxy, intervalMs: number): Observable<Sessions> {
  return timer(0, Math.max(shortestMs, Number(intervalMs) || 0)).pipe(map(() => snapshot(proxy)))
}

/** The connections that last. */
function snapshot(proxy: TransparentProxy): Sessions {
  const adopted = [...proxy.adopted.entries()].filter(([, { lasts }]) => lasts)
  const rows = [
    ...adopted.map(
      ([index, connection]) =>
        () =>
          adoptedRow(index, connection),
    ),
    ...Array.from(proxy.running, (session) => () => row(session)),
  ]
  return {
    atMs: performance.now(),
    total: rows.length,
    sessions: rows.slice(-listed).map((make) => make()),
  }
}

/** Resets a session by its number, or an adopted connection by `a` and its number. */
export async function closeSession(proxy: TransparentProxy, id: SessionRow['id']): Promise<{ how: string }> {
  for (const session of proxy.running)
    if (session.connection.id === id) return { how: (await session.close()).end?.how ?? '' }
  for (const [index, connection] of proxy.adopted.entries())
    if (adoptedId(index) === id && connection.lasts) {
      connection.abort({ how: 'aborted' })
      return { how: (await connection.ended).how }
    }
  throw new TproxyError('E_STATE', `close session ${id}: it has ended`)
}

/** What is told of a session. */
export function row(session: Session): SessionRow {
  const { connection, verdict, plugin, upstream, carried, notSpliced, bytes, durationMs } = session
  return {
    id: connection.id,
    source: place(connection.source),
    destination: place(connection.destination),
    name: connection.peeked?.name,
    process: connection.process,
    interface: connection.interface,
    rule: connection.rule,
    verdict: verdict.kind,
    plugin,
    upstream,
    carried,
    notSpliced,
    bytes,
    durationMs: Math.round(durationMs),
  }
}

/** What its verdict was, an earlier process knew. */
function adoptedRow(index: number, { source, destination, upstream, bytes }: Adopted): SessionRow {
  const isDirect = upstream.address === destination.address && upstream.port === destination.port
  return {
    id: adoptedId(index),
    source: place(source),
    destination: place(destination),
    verdict: isDirect ? 'direct' : 'via',
    upstream: isDirect ? undefined : formatEndpoint(upstream),
    carried: 'splice',
    bytes,
  }
}

const adoptedId = (index: number) => `a${index + 1}` as const
const place = ({ address, port }: Endpoint) => ({ address, port })
