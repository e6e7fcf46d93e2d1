// What our own goals are about, in rounds long enough that opening 64 connections, and what V8 compiles on the way, are no
// part of it: tproxy beside no proxy only. Prints tables; five minutes.
import { execFileSync } from 'node:child_process'
import { compare, openAll, warmUp } from './compare/compare.ts'
import { machine } from './compare/machine.ts'
import { ratio, table } from './compare/report.ts'
import type { Sample, Traffic } from './compare/results.ts'
import type { Route } from './compare/side.ts'
import { warming, workloads } from './compare/workloads.ts'
import { sides } from './peers/index.ts'

const rounds = 12
const roundMs = 300
const chosen: Partial<Record<Route, RegExp>> = {
  origin: /^(no proxy|tproxy, left alone|tproxy splice)/,
  socks: /^(by itself|tproxy splice)/,
}
const asked = ['up', 'down', 'up × 64', 'down × 64', 'ping 64 B', 'ping 16 KB', 'open', 'open × 16']

/** Of each workload the ratios to the first side's, round by round. */
function show(name: string, found: readonly Traffic[], what: (sample: Sample) => number): void {
  const titles = [...new Set(found.map(({ workload }) => workload))]
  const rows = [...new Set(found.map(({ side }) => side))].map((side) => [
    side,
    ...titles.map((title) => {
      const [first] = found.filter(({ workload }) => workload === title)
      const of = found.find((it) => it.workload === title && it.side === side)
      if (of === undefined || first === undefined) return '–'
      if (of.failed !== undefined) return of.failed
      const { median, low, high } = ratio(of, first, what)
      return `${median.toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`
    }),
  ])
  console.log(`${table([name, ...titles], rows)}\n`)
}

// Not on the CPU of the proxies.
execFileSync('taskset', ['-apc', '0', `${process.pid}`], { stdio: 'ignore' })
const { cpu, cpus, kernel, commit, load } = machine()
console.log(
  `${cpu}, ${cpus} CPUs, Linux ${kernel}; commit ${commit}; load ${load}; ${rounds} rounds of ${roundMs} ms\n`,
)
for (const [route, names] of Object.entries(chosen)) {
  await using stack = new AsyncDisposableStack()
  const ready = await openAll(
    stack,
    sides.filter((side) => side.route === route && names.test(side.name)),
    ({ name }, why) => console.log(`${name} does not start: ${why}`),
  )
  await warmUp(ready, warming, roundMs)
  const found: Traffic[] = []
  for (const workload of workloads.filter(({ title }) => asked.includes(title)))
    found.push(...(await compare(ready, { ...workload, times: 1 }, { rounds, ms: roundMs })))
  show(`${route}: rate`, found, ({ rate }) => rate)
  show(`${route}: CPU for each byte or exchange`, found, (sample) => sample.cpu)
}
