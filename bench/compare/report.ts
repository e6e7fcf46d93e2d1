// Tables of the results, in Markdown.

import type { Results, Sample, Traffic } from './results.ts'
import { type Route, routes } from './side.ts'
import { type Estimate, estimate } from './statistics.ts'

const titles: Readonly<Record<Route, string>> = {
  origin: 'Straight to the origin',
  socks: 'Through a SOCKS5 server',
  http: 'Through an HTTP server, by CONNECT',
  alone: 'Traffic that is left alone',
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, at) => (at === 0 ? '---' : '--:'))), ...rows.map(line)].join('\n')
}

export const figures = (value: number, digits = 3): string =>
  value >= 1000
    ? Math.round(value).toLocaleString('en').replaceAll(',', ' ')
    : String(Number(value.toPrecision(digits)))
const hundredths = (value: number) => value.toFixed(value < 0.1 ? 3 : 2)
const median = (values: readonly number[]) => (values.length === 0 ? Number.NaN : estimate(values).median)

/** Beside the first side of the route, of the same rounds. */
export function ratio(of: Traffic, first: Traffic, what: (sample: Sample) => number): Estimate {
  const pairs = of.rounds.flatMap((sample, round) => {
    const base = first.rounds[round]
    return base === undefined || what(base) === 0 ? [] : [what(sample) / what(base)]
  })
  return estimate(pairs)
}

/** A route's results, by side and workload. */
export function grid({ traffic }: Results, route: Route) {
  const own = traffic.filter((it) => it.route === route)
  const sides = [...new Set(own.map(({ side }) => side))]
  const workloads = [...new Set(own.map(({ workload }) => workload))]
  const at = (side: string, workload: string) =>
    own.find((it) => it.side === side && it.workload === workload)
  return { sides, workloads, at }
}

type Cell = (of: Traffic, first: Traffic) => string

function crossTable(results: Results, route: Route, cell: Cell, kinds?: RegExp): string {
  const { sides, workloads, at } = grid(results, route)
  const columns = workloads.filter((workload) => kinds?.test(workload) ?? true)
  const rows = sides.map((side) => [
    side,
    ...columns.map((workload) => {
      const [of, first] = [at(side, workload), at(sides[0] ?? '', workload)]
      if (of === undefined || first === undefined) return '–'
      if (of.failed !== undefined) return '**failed**'
      return of.rounds.length === 0 ? '–' : cell(of, first)
    }),
  ])
  return table(['', ...columns], rows)
}

const bounded = ({ median: middle, low, high }: Estimate) =>
  Number.isNaN(middle) ? '–' : `${hundredths(middle)} (${hundredths(low)}–${hundredths(high)})`
const rates: Cell = (of, first) => (of === first ? '1' : bounded(ratio(of, first, ({ rate }) => rate)))
const absolute: Cell = ({ workload, rounds }) => {
  const rate = median(rounds.map((sample) => sample.rate))
  return /^(up|down)/.test(workload) ? `${figures(rate / 1e9)} GB/s` : `${figures(rate)} /s`
}
/** A median and its bounds. */
function spread(values: readonly number[]): string {
  const { median: middle, low, high } = estimate(values)
  return `${figures(middle)} (${figures(low)}–${figures(high)})`
}
const timesOf =
  (percentile: 'p50' | 'p99'): Cell =>
  ({ rounds }) =>
    spread(rounds.map((sample) => sample[percentile]))
const processor: Cell = ({ rounds }) =>
  `${spread(rounds.map(({ cpu }) => cpu))}, ${figures(median(rounds.map(({ softirq }) => softirq)), 2)}`
const sentAgain: Cell = ({ rounds }) => spread(rounds.map(({ retransmits }) => retransmits))

export const label = ({ machine, quick, rounds, roundMs, minutes }: Results): string =>
  `${machine.cpu}, ${machine.cpus} CPUs, ${Math.round(machine.memoryMb / 1024)} GB, Linux ${machine.kernel}, Node ${machine.node}; ` +
  `commit ${machine.commit}, ${machine.at.slice(0, 16).replace('T', ' ')} UTC; load ${machine.load} before it began; ` +
  `${rounds} rounds of ${roundMs} ms (× 64: four times as long)${quick ? ' (`--quick`)' : ''}, ${minutes.toFixed(1)} minutes`

const bulk = /^(up|down)/

/** By the name of the marker in docs/performance.md. */
export function sections(results: Results): Record<string, string> {
  const { sides, startUp, held, notes, traffic } = results
  const all: Record<string, string> = { machine: label(results) }
  for (const route of routes) {
    all[`${route}-ratios`] = crossTable(results, route, rates)
    all[`${route}-absolute`] = crossTable(results, route, absolute)
    all[`${route}-p50`] = crossTable(results, route, timesOf('p50'), /^(ping|open)/)
    all[`${route}-p99`] = crossTable(results, route, timesOf('p99'), /^(ping|open)/)
    all[`${route}-processor`] = crossTable(results, route, processor, bulk)
    all[`${route}-retransmits`] = crossTable(results, route, sentAgain, bulk)
  }
  all['start-up'] = table(
    ['', 'ms until it can be used', 'the first time on a host'],
    startUp
      .filter(({ ms }) => ms.length > 0)
      .map(({ side, first, ms }) => [side, spread(ms), figures(first)]),
  )
  all['memory'] = table(
    [
      '',
      'connections',
      'of them carried bytes',
      'process before, MB',
      'KB for each: process',
      'KB for each: kernel slab',
    ],
    held.map(({ side, connections, succeeded, beforeKb, afterKb, slabKb }) => [
      side,
      figures(connections),
      figures(succeeded),
      figures(beforeKb / 1024),
      hundredths((afterKb - beforeKb) / succeeded),
      hundredths(slabKb / succeeded),
    ]),
  )
  all['sides'] = table(
    ['', 'route', 'Debian package', 'how it is set up'],
    sides.map(({ name, route, version, setup, absent }) => [
      name,
      route,
      version ?? '',
      absent === undefined ? setup.replaceAll('|', '\\|') : `**left out**: ${absent}`,
    ]),
  )
  const failures = traffic.flatMap(({ route, workload, side, failed }) =>
    failed === undefined ? [] : [`- ${route}, ${workload}, ${side}: ${failed}`],
  )
  all['failures'] = [...failures, ...notes.map((note) => `- ${note}`)].join('\n') || 'None.'
  return all
}

/** The whole of it, as bench/results/report.md. */
export function report(results: Results, rules: string): string {
  const part = sections(results)
  return `# Results

${part['machine']}

Beside the first line of each table: medians of the ratios of one round each, with bounds of the median; what they are and how they
come about is in [docs/performance.md](../../docs/performance.md). Absolute figures are those of this machine.

${routes
  .map(
    (route) => `## ${titles[route]}

Rates beside the first line; more is better.

${part[`${route}-ratios`]}

![${titles[route]}](${route}.svg)

Rates on this machine.

${part[`${route}-absolute`]}

Microseconds of an exchange, or from connect to the first byte: p50 of a round.

${part[`${route}-p50`]}

And p99.

${part[`${route}-p99`]}

Seconds of CPU of the whole machine for a gigabyte, and what of it the kernel counts as softirq.

${part[`${route}-processor`]}

Segments sent again in a round.

${part[`${route}-retransmits`]}
`,
  )
  .join('\n')}
## Start-up

${part['start-up']}

## Memory for connections that are open

${part['memory']}

## Rules

${rules}

## Sides

${part['sides']}

## What failed or was left out

${part['failures']}
`
}
