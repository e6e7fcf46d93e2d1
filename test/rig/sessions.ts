import type { Program } from './host.ts'

/** A line of JSON of proxy.ts about a session. */
export interface SessionLine {
  readonly event: string
  readonly id: number
  readonly source: { readonly address: string; readonly port: number }
  readonly destination: { readonly address: string; readonly port: number }
  readonly process?: { readonly name: string }
}

/** What the proxy says of the connection from this port, now or soon. */
export async function sessionFrom(proxy: Program, port: number): Promise<SessionLine> {
  const find = () => sessions(proxy).find(({ source }) => source.port === port)
  await proxy.until(() => find() !== undefined, `a session from port ${port}`)
  return find() as SessionLine
}

/** How that connection ended, now or soon. */
export async function endFrom(proxy: Program, port: number): Promise<Record<string, unknown>> {
  const { id } = await sessionFrom(proxy, port)
  const find = () => proxy.events.find((event) => event.event === 'end' && event.id === id)
  await proxy.until(() => find() !== undefined, `the end of session ${id}`)
  return find() as Record<string, unknown>
}

/** All sessions so far, of the programs of one name, or of all. */
export function sessions(proxy: Program, name?: string): SessionLine[] {
  const all = proxy.events.filter(({ event }) => event === 'session') as SessionLine[]
  return all.filter(({ process }) => name === undefined || process?.name === name)
}

/** All ends so far. */
export function ends(proxy: Program): Record<string, unknown>[] {
  return proxy.events.filter(({ event }) => event === 'end')
}

/**
 * Of many that had been peeked at, those that were relayed. But for a few whose upstream looked far, for it takes 4 ms to hear of
 * its answer beside other work.
 */
export function relayed(proxy: Program): Record<string, unknown>[] {
  const found = ends(proxy).filter(({ carried }) => carried !== 'splice')
  const others = found.filter(({ notSpliced }) => !String(notSpliced).startsWith('the upstream is far'))
  return (found.length - others.length) * 50 < ends(proxy).length ? others : found
}

export function warnings(proxy: Program): string[] {
  return proxy.events.filter(({ event }) => event === 'warning').map(({ message }) => String(message))
}
