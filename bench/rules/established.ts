// What a packet of an established connection costs in each of our programs, less what one costs that does nothing: by the kernel's
// own clock around every run (kernel.bpf_stats_enabled, whose cost the empty program has as well). A byte each way on a
// connection that a rule lets pass: it meets wan_egress and splice_egress, the answer splice_ingress.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import type { Program } from '../../test/rig/host.ts'
import { originPort } from './aimed.ts'
import { compiled, median, printTable, writeResults } from './report.ts'
import { makeSides } from './sides.ts'

const rounds = 12
const roundMs = 60
const switchPath = '/proc/sys/kernel/bpf_stats_enabled'

interface Runs {
  readonly id: number
  readonly name: string
  readonly run_cnt?: number
  readonly run_time_ns?: number
}

const programs = () =>
  JSON.parse(execFileSync('bpftool', ['-j', 'prog', 'show'], { encoding: 'utf8' })) as Runs[]

/** Nanoseconds a run, by program, of what ran meanwhile. */
async function nanoseconds(work: () => Promise<void>): Promise<Map<string, number>> {
  const before = new Map(programs().map((program) => [program.id, program]))
  await work()
  const found = new Map<string, number>()
  for (const { id, name, run_cnt: runs = 0, run_time_ns: ns = 0 } of programs()) {
    const { run_cnt: runsBefore = 0, run_time_ns: nsBefore = 0 } = before.get(id) ?? {}
    if (runs - runsBefore > 1000) found.set(name, (ns - nsBefore) / (runs - runsBefore))
  }
  return found
}

execFileSync('taskset', ['-pc', '0', `${process.pid}`])
const wasOn = readFileSync(switchPath, 'utf8')
// Of the whole machine: it is as before however we end.
process.once('exit', () => writeFileSync(switchPath, wasOn))
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
writeFileSync(switchPath, '1')

const rows = []
for (const rules of [1, 10, 100, 1000, 10_000]) {
  await using stack = new AsyncDisposableStack()
  const traffic: Program[] = []
  for (const { name, client, internet } of await makeSides(stack, rules, ['empty', 'ours'])) {
    const words = [
      compiled('traffic.c'),
      `${roundMs}`,
      'stream',
      `/proc/${client.pid}/ns/net`,
      `${originPort}`,
    ]
    const program = stack.use(internet.spawn('taskset', ['-c', '1', ...words]))
    await program.until(({ stdout }) => stdout.includes('\n'), `the traffic of ${name}`)
    traffic.push(program)
  }
  const all = new Map<string, number[]>()
  for (let round = 0; round < rounds; round++)
    for (const program of round % 2 === 0 ? traffic : traffic.toReversed()) {
      const found = await nanoseconds(async () => {
        const lines = program.stdout.split('\n').length
        program.child.stdin?.write('\n')
        await program.until(({ stdout }) => stdout.split('\n').length > lines, 'the end of a round')
      })
      for (const [name, ns] of found) all.set(name, [...(all.get(name) ?? []), ns])
    }
  const empty = median(all.get('empty') ?? [])
  const net = (name: string) => Number((median(all.get(name) ?? []) - empty).toFixed(1))
  const hooks = ['wan_egress', 'splice_egress', 'splice_ingress']
  rows.push({ rules, ...Object.fromEntries(hooks.map((name) => [name, net(name)])) })
}
printTable(
  'A packet of an established connection: ns in each program, net of an empty one',
  rows.map((row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name, `${value}`]))),
)
writeResults('established', rows)
