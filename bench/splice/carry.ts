// What a proxied connection reaches beside a direct one: spliced, relayed, and without a proxy.
// Both ends are on one CPU and the proxy on the other: a wake-up across these two costs up to 90 µs, more than what is measured.
import { execFileSync } from 'node:child_process'
import { World } from '../../test/rig/world.ts'
import { printTable } from '../rules/report.ts'
import { buildEnds, type Exchange, measure, port, type Side } from './sides.ts'

const ends = buildEnds()
await using stack = new AsyncDisposableStack()
const sides: Side[] = []
for (const name of ['direct', 'splice', 'relay'] as const) {
  const world = stack.use(await World.create())
  const server = world.internet.spawn('taskset', ['-c', '0', ends, 'serve', `${port}`])
  await server.until(({ stdout }) => stdout.includes('ready'), 'the server')
  if (name !== 'direct') {
    const proxy = await world.proxy({ interfaces: ['wan0'], carry: name, silent: true })
    execFileSync('taskset', ['-apc', '1', `${proxy.pid}`], { stdio: 'ignore' })
  }
  sides.push({ name, world })
}

const exchanges: readonly (Exchange & { unit: number })[] = [
  { title: 'up, MB/s', kind: 'up', connections: 1, unit: 1e6 },
  { title: 'down, MB/s', kind: 'down', connections: 1, unit: 1e6 },
  { title: 'up by 64, MB/s', kind: 'up', connections: 64, unit: 1e6 },
  { title: 'down by 64, MB/s', kind: 'down', connections: 64, unit: 1e6 },
  { title: '64 B ping-pong, /s', kind: 'ping', connections: 1, unit: 1 },
  { title: '64 B ping-pong by 64, /s', kind: 'ping', connections: 64, unit: 1 },
  { title: 'connect + 1 B + close, /s', kind: 'open', connections: 1, unit: 1 },
  { title: 'connect + 1 B + close by 16, /s', kind: 'open', connections: 16, unit: 1 },
]
const rows = []
for (const exchange of exchanges) {
  const found = await measure(ends, sides, exchange)
  const of = (name: string, what: 'reached' | 'cpu' = 'reached') => found.get(name)?.[what] ?? Number.NaN
  rows.push({
    what: exchange.title,
    ...Object.fromEntries(sides.map(({ name }) => [name, of(name) / exchange.unit])),
    'splice / direct': (of('splice') / of('direct')).toFixed(2),
    'relay / direct': (of('relay') / of('direct')).toFixed(2),
    'CPU, splice / direct': (of('splice', 'cpu') / of('direct', 'cpu')).toFixed(2),
    'CPU, relay / direct': (of('relay', 'cpu') / of('direct', 'cpu')).toFixed(2),
  })
}
printTable(
  'Beside no proxy: medians of ten alternating rounds of half a second; CPU of the machine for the same work',
  rows,
)
