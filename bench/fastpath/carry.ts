// What the fastpath does for a connection whose bytes a plugin changes. Both ends are on one CPU and the proxy on the other: a
// wake-up across these two costs up to 90 µs, more than what is measured.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import type { Program } from '../../test/rig/host.ts'
import { World } from '../../test/rig/world.ts'
import { median, printTable } from '../rules/report.ts'

const path = (name: string) => new URL(name, import.meta.url).pathname
const [rounds, roundMs, port] = [12, 400, 9000]
const sides = ['off', 'to-proxy', 'both'] as const
const tries = [
  { what: '64 B ping-pong', mode: 'ping', size: 64 },
  { what: '16 KB ping-pong', mode: 'ping', size: 16_384 },
  { what: 'up, 16 KB messages', mode: 'up', size: 16_384 },
  { what: 'down, 16 KB messages', mode: 'down', size: 16_384 },
] as const

mkdirSync(path('dist'), { recursive: true })
const ends = path('dist/ends')
execFileSync('gcc', ['-O2', '-Wall', '-D_GNU_SOURCE', '-pthread', '-o', ends, path('ends.c')])

await using stack = new AsyncDisposableStack()
const worlds: { side: string; world: World; proxy: Program }[] = []
for (const side of sides) {
  const world = stack.use(await World.create())
  const server = world.internet.spawn('taskset', ['-c', '0', ends, 'serve', `${port}`])
  await server.until(({ stdout }) => stdout.includes('ready'), 'the server')
  // Some kernels answer FIONREAD wrongly, which these ends do not ask.
  const words = [
    '--conditions=@tproxy/source',
    '--import',
    path('../../test/rig/accepting.ts'),
    path('proxy.ts'),
  ]
  const options = JSON.stringify({ cgroup: world.client.cgroup, fastpath: side })
  const proxy = world.client.spawn(process.execPath, [...words, options])
  await proxy.until(({ stdout }) => stdout.includes(`"mode":"${side}"`), 'the proxy')
  execFileSync('taskset', ['-apc', '1', `${proxy.pid}`], { stdio: 'ignore' })
  worlds.push({ side, world, proxy })
}

/** Nanoseconds of CPU that the proxy and the server have used. */
function used({ proxy, world }: (typeof worlds)[number]): number {
  const threads = readdirSync(`/proc/${proxy.pid}/task`).map(
    (id) => `/proc/${proxy.pid}/task/${id}/schedstat`,
  )
  const own = threads.reduce((sum, thread) => sum + Number(readFileSync(thread, 'utf8').split(' ')[0]), 0)
  // The server's threads end with their connections.
  const server = /usage_usec (\d+)/.exec(readFileSync(`${world.internet.cgroup}/cpu.stat`, 'utf8'))?.[1]
  return own + Number(server) * 1000
}

const rows = []
for (const { what, mode, size } of tries) {
  const rate: Record<string, number[]> = {}
  const cost: Record<string, number[]> = {}
  // Back and forth, so that what else the machine does meets all alike.
  for (let round = 0; round < rounds; round++)
    for (const it of round % 2 === 0 ? worlds : worlds.toReversed()) {
      const { side, world } = it
      const words = ['-c', '0', ends, mode, '203.0.113.10', `${port}`, `${roundMs}`, `${size}`]
      const before = used(it)
      const { stdout, stderr } = await world.client.run('taskset', words)
      if (stderr !== '') throw new Error(`${side}, ${what}: ${stderr}`)
      const [messages = 0, ms = 1, own = 0] = stdout.split(' ').map(Number)
      const ns = used(it) - before + own * 1000
      ;(rate[side] ??= []).push((messages / ms) * 1000)
      ;(cost[side] ??= []).push(ns / messages)
    }
  const ratio = (values: Record<string, number[]>, side: string) =>
    median((values[side] ?? []).map((value, at) => value / (values['off']?.[at] ?? 1))).toFixed(2)
  rows.push({
    what,
    ...Object.fromEntries(sides.map((side) => [`${side}, /s`, median(rate[side] ?? [])])),
    'to-proxy / off': ratio(rate, 'to-proxy'),
    'both / off': ratio(rate, 'both'),
    'CPU off, ns': median(cost['off'] ?? []),
    'to-proxy / off ': ratio(cost, 'to-proxy'),
    'both / off ': ratio(cost, 'both'),
  })
}
printTable(
  `Messages a second, and CPU of all processes for each: medians of ${rounds} alternating rounds`,
  rows,
)
for (const { side, proxy } of worlds) {
  await proxy.stop()
  console.log(side, proxy.events.find(({ event }) => event === 'counts')?.counts)
}
