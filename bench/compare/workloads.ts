import type { Route } from './side.ts'

/** What is done on a side: see ends.c. */
export interface Workload {
  readonly title: string
  readonly kind: 'up' | 'down' | 'ping' | 'open'
  readonly connections: number
  /** Bytes of a message. */
  readonly size: number
  /** How many times as long its rounds are. */
  readonly times?: number
  /** The proxy too is on the CPU of the ends: no wake-up of another one is in the figures. */
  readonly oneCpu?: boolean
}

const bulk = (kind: 'up' | 'down'): Workload => ({ title: kind, kind, connections: 1, size: 1 })

/**
 * In 50 ms they had 0.59 of no proxy by BBR and 0.86 by reno, in 300 ms 1.04: how they begin is not what it is to carry them. Most
 * likely BBR begins with the round trip of the handshake, in which 64 decisions wait for each other.
 */
const many = (kind: 'up' | 'down'): Workload => ({
  ...bulk(kind),
  title: `${kind} × 64`,
  connections: 64,
  times: 4,
})
const ping = (title: string, size: number): Workload => ({ title, kind: 'ping', connections: 1, size })
const open = (title: string, connections: number): Workload => ({ title, kind: 'open', connections, size: 1 })

export const workloads: readonly Workload[] = [
  bulk('up'),
  bulk('down'),
  many('up'),
  many('down'),
  ping('ping 64 B', 64),
  { ...ping('ping 64 B, one CPU', 64), oneCpu: true },
  ping('ping 1 KB', 1024),
  ping('ping 16 KB', 16_384),
  open('open', 1),
  open('open × 16', 16),
]

const few = ['up', 'down', 'ping 64 B', 'open', 'open × 16']

/** One of each kind. */
export const warming = workloads.filter(({ title }) => few.slice(0, 4).includes(title))

/** Of a route. What no proxy carries can differ in what its packets cost only; quickly, so do all. */
export const usual = (route: Route, quick: boolean): readonly Workload[] => {
  if (quick) return warming
  if (route === 'alone') return workloads.filter(({ title }) => few.includes(title))
  return route === 'origin' ? workloads : workloads.filter(({ oneCpu }) => !oneCpu)
}
