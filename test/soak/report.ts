import type { Holding, Tally } from './proxy.ts'

export interface KindCount {
  runs: number
  /** Got to its end. */
  whole: number
  /** Did not, which a fault explains. */
  broken: number
  bytes: number
  /** Of the longest. */
  longestMs: number
}

export interface Report {
  readonly seed: number
  readonly seconds: number
  readonly programs: Record<string, KindCount>
  readonly faults: Record<string, number>
  readonly proxy: Tally
  /** Megabytes a second, while programs ran. */
  readonly throughput: number
  readonly held: { readonly base: Holding; readonly highest: Holding; readonly last: Holding }
  /** How often all came to rest, and the longest that it took. */
  readonly rests: { readonly count: number; readonly longestMs: number }
  /** Connections that the internet held on to, for a reset was lost on its way. */
  readonly halfOpen: number
  readonly violations: readonly string[]
  /** What happened last before the first violation, else before the end. */
  readonly events: readonly string[]
}

const table = (rows: readonly (readonly (string | number)[])[]) => {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => String(row[column]).length)),
  )
  return rows
    .map((row) =>
      row
        .map((cell, column) =>
          column === 0
            ? String(cell).padEnd(widths[column] ?? 0)
            : String(cell).padStart(widths[column] ?? 0),
        )
        .join('  '),
    )
    .join('\n')
}

const counts = (title: string, record: Record<string, number>) =>
  Object.entries(record).length === 0 ? [] : [table([[title, ''], ...Object.entries(record)])]

/** A report as text. */
export function describe(report: Report): string {
  const { programs, faults, proxy, held, rests, violations } = report
  const parts = [
    table([
      ['program', 'runs', 'whole', 'broken by a fault', 'MB', 'longest s'],
      ...Object.entries(programs).map(([name, { runs, whole, broken, bytes, longestMs }]) => [
        name,
        ...[runs, whole, broken, (bytes / 1e6).toFixed(1), (longestMs / 1000).toFixed(1)],
      ]),
    ]),
    ...counts('fault', faults),
    ...counts(`${proxy.sessions} sessions in ${proxy.starts} processes, carried by`, proxy.carried),
    ...counts('they ended', proxy.ends),
    ...counts('relayed because', proxy.relayedBecause),
    ...counts('failed because', proxy.failedBecause),
    ...counts('warnings', proxy.warnings),
    table([
      ['tproxy-run holds', 'fds', 'RSS MB', 'heap MB', 'legs', 'flows'],
      ...Object.entries(held).map(([name, { fds, rssMb, heapMb, legs, flows }]) => [
        name,
        ...[fds, rssMb, heapMb, legs, flows],
      ]),
    ]),
    `${report.throughput.toFixed(1)} MB/s; at rest ${rests.count} times, after ${(rests.longestMs / 1000).toFixed(1)} s at most, ${report.halfOpen} connections having one end only`,
    ...(violations.length === 0 ? [] : [`${violations.length} violations:`, violations.join('\n')]),
    ...(violations.length === 0 ? [] : ['what happened before the first:', report.events.join('\n')]),
    `soak: seed ${report.seed}, ${report.seconds} s, ${violations.length === 0 ? 'every promise was kept' : 'FAILED'}`,
  ]
  return parts.join('\n\n')
}
