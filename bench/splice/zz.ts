import { execFileSync } from 'node:child_process'
import { World } from '../../test/rig/world.ts'
import { buildEnds, port } from './sides.ts'

const ends = buildEnds()
await using world = await World.create()
const server = world.internet.spawn('taskset', ['-c', '0', ends, 'serve', `${port}`])
await server.until(({ stdout }) => stdout.includes('ready'), 'the server')
const proxy = await world.proxy({ interfaces: ['wan0'], silent: true })
execFileSync('taskset', ['-apc', '1', `${proxy.pid}`], { stdio: 'ignore' })
const ping = async () =>
  (
    await world.client.run('taskset', [
      '-c',
      '0',
      'sh',
      '-c',
      `${ends} ${process.argv[2] ?? 'ping'} 203.0.113.10 ${port} 1500 `,
    ])
  ).stdout.trim()
console.log(await ping())
const stats = () =>
  JSON.parse(execFileSync('/usr/sbin/bpftool', ['-j', 'prog', 'show'], { encoding: 'utf8' }))
    .filter((p: any) => /^(splice|wan_|lo_)/.test(p.name ?? ''))
    .map((p: any) => [p.id, p.name, p.run_cnt ?? 0, p.run_time_ns ?? 0])
execFileSync('sysctl', ['-q', 'kernel.bpf_stats_enabled=1'])
const before = new Map<number, any>(stats().map((s: any) => [s[0], s]))
console.log(await ping())
for (const [id, name, count, time] of stats()) {
  const b = before.get(id)
  if (b && count - b[2] > 1000)
    console.log(name, count - b[2], ((time - b[3]) / (count - b[2])).toFixed(0), 'ns')
}
execFileSync('sysctl', ['-q', 'kernel.bpf_stats_enabled=0'])
console.log(await ping())
