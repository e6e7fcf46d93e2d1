// Both ends are on one CPU and the proxy on the other: a wake-up across these two costs up to 90 µs, more than what is measured.
// What a proxied connection reaches beside a direct one: spliced, relayed, and without a proxy, in turn.
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { World } from '../../test/rig/world.ts'
import { median, printTable } from '../rules/report.ts'

const here = new URL('./', import.meta.url).pathname
const [rounds, roundMs, port] = [10, 500, 9000]
const sides = ['direct', 'splice', 'relay'] as const
const modes = { up: 1e6, down: 1e6, ping: 1, open: 1 } as const

mkdirSync(`${here}dist`, { recursive: true })
const ends = `${here}dist/ends`
execFileSync('gcc', ['-O2', '-Wall', '-D_GNU_SOURCE', '-pthread', '-o', ends, `${here}ends.c`])

await using stack = new AsyncDisposableStack()
const worlds = []
for (const side of sides) {
  const world = stack.use(await World.create())
  const server = world.internet.spawn('taskset', ['-c', '0', ends, 'serve', `${port}`])
  await server.until(({ stdout }) => stdout.includes('ready'), 'the server')
  if (side !== 'direct') {
    const proxy = await world.proxy({ interfaces: ['wan0'], carry: side })
    execFileSync('taskset', ['-apc', '1', `${proxy.pid}`], { stdio: 'ignore' })
  }
  worlds.push({ side, world })
}

const rows = []
for (const mode of Object.keys(modes) as (keyof typeof modes)[]) {
  const reached: Record<string, number[]> = {}
  // Back and forth, so that what else the machine does meets all alike.
  for (let round = 0; round < rounds; round++)
    for (const { side, world } of round % 2 === 0 ? worlds : worlds.toReversed()) {
      const words = ['-c', '0', ends, mode, '203.0.113.10', `${port}`, `${roundMs}`]
      const { stdout, stderr } = await world.client.run('taskset', words)
      if (stderr !== '') throw new Error(`${side}, ${mode}: ${stderr}`)
      ;(reached[side] ??= []).push(Number(stdout))
    }
  const of = (side: string) => median(reached[side] ?? [])
  rows.push({
    what: {
      up: 'up, MB/s',
      down: 'down, MB/s',
      ping: '64 B ping-pong, /s',
      open: 'connect + 1 B + close, /s',
    }[mode],
    ...Object.fromEntries(sides.map((side) => [side, of(side) / modes[mode]])),
    'splice / direct': (of('splice') / of('direct')).toFixed(2),
    'relay / direct': (of('relay') / of('direct')).toFixed(2),
  })
}
printTable('One connection, medians of ten alternating rounds of half a second', rows)
