// What a program reaches through a SOCKS server, beside a program that speaks SOCKS to that server by itself. The ends and the
// server are on one CPU, the proxy on the other.
import { execFileSync } from 'node:child_process'
import { microsocks } from '../../test/rig/servers.ts'
import { World } from '../../test/rig/world.ts'
import { printTable } from '../rules/report.ts'
import { buildEnds, type Exchange, measure, port, type Side } from './sides.ts'

const ends = buildEnds()
const exchanges: readonly (Exchange & { unit: number })[] = [
  { title: 'up, MB/s', kind: 'up', connections: 1, unit: 1e6 },
  { title: 'down, MB/s', kind: 'down', connections: 1, unit: 1e6 },
  { title: '64 B ping-pong, /s', kind: 'ping', connections: 1, unit: 1 },
  { title: 'connect + 1 B + close, /s', kind: 'open', connections: 1, unit: 1 },
]

for (const [where, address] of [
  ['elsewhere', '198.51.100.1'],
  ['on this host', '127.0.0.1'],
] as const) {
  await using stack = new AsyncDisposableStack()
  const sides: Side[] = []
  for (const name of ['by itself', 'splice', 'relay'] as const) {
    const world = stack.use(await World.create())
    const server = world.internet.spawn('taskset', ['-c', '0', ends, 'serve', `${port}`])
    await server.until(({ stdout }) => stdout.includes('ready'), 'the server')
    const host = where === 'elsewhere' ? world.internet : world.client
    const proxy = stack.use(await microsocks(host, address, 1080))
    execFileSync('taskset', ['-apc', '0', `${proxy.program.pid}`], { stdio: 'ignore' })
    if (name === 'by itself') {
      sides.push({ name, world, socks: address })
      continue
    }
    const args = ['-q', '-i', 'wan0', '--carry', name, '-p', `socks=socks5://${address}:1080`]
    const program = world.run([...args, '--json'], { input: '' })
    stack.defer(async () => void (await program.stop()))
    await program.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line')
    execFileSync('taskset', ['-apc', '1', `${program.pid}`], { stdio: 'ignore' })
    sides.push({ name, world })
  }
  const rows = []
  for (const exchange of exchanges) {
    const found = await measure(ends, sides, exchange)
    const of = (name: string) => found.get(name)?.reached ?? Number.NaN
    rows.push({
      what: exchange.title,
      ...Object.fromEntries(sides.map(({ name }) => [name, of(name) / exchange.unit])),
      'splice / by itself': (of('splice') / of('by itself')).toFixed(2),
      'relay / by itself': (of('relay') / of('by itself')).toFixed(2),
    })
  }
  printTable(
    `Through a SOCKS server ${where}, at ${address}: medians of ten alternating rounds of half a second`,
    rows,
  )
}
