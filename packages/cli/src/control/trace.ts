import { endpoint, reason, type Session, type TraceTarget, type TransparentProxy } from '@tproxy/core'
import { bufferTime, filter, from, map, merge, mergeMap, type Observable, of } from 'rxjs'
import type { TraceLine } from './protocol.ts'
import { row } from './sessions.ts'

/** What the kernel tells and what we know by ourselves arrive by different ways: so long they wait for each other. */
const orderMs = 100

/** What the kernel does with packets of a destination, and what becomes of its connections. */
export function traceOf(proxy: TransparentProxy, { address, port }: TraceTarget): Observable<TraceLine> {
  const wanted = endpoint(address, port ?? 0)
  const isWanted = ({ connection: { destination } }: Session) =>
    destination.address === wanted.address && (port === undefined || destination.port === port)
  const steps = proxy.trace({ address, ...(port !== undefined && { port }) })
  const told = merge(
    steps.pipe(map((step): Told => ({ event: 'step', ...step }))),
    proxy.sessions.pipe(filter(isWanted), mergeMap(story)),
  )
  return merge(
    told.pipe(
      bufferTime(orderMs),
      mergeMap((lines) => lines.sort((a, b) => a.timeMs - b.timeMs)),
    ),
    of<TraceLine>({ event: 'tracing', pid: process.pid, address: wanted.address, port: wanted.port }),
  )
}

type Told = Exclude<TraceLine, { event: 'tracing' }>

/** Of one session, from its verdict to its end. */
function story(session: Session): Observable<Told> {
  const begin: Told = { event: 'session', timeMs: now(), session: row(session) }
  const end = from(session.ended).pipe(
    map(({ end: how }): Told => {
      const error = how?.error === undefined ? {} : { error: reason(how.error) }
      return { event: 'end', timeMs: now(), session: row(session), how: how?.how ?? 'closed', ...error }
    }),
  )
  return merge(of(begin), end)
}

const now = () => performance.timeOrigin + performance.now()
