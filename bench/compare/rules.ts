// What bench/rules measured, in the same report: its tables and curves.
import { existsSync, readFileSync } from 'node:fs'
import type { Machine } from './machine.ts'
import { curves } from './plot.ts'
import { figures, table } from './report.ts'

type Row = Readonly<Record<string, string | number>>
const path = new URL('../rules/results.json', import.meta.url)
const parts = { datagrams: 'ns a datagram', connections: 'ns each' }
const described = new Set(['kind', 'rules', 'none'])

/** Empty, where bench/rules has not been run. */
export function rulesReport(): { markdown: string; plots: Record<string, string> } {
  const found: Record<string, { machine: Machine; results: readonly Row[] }> = existsSync(path)
    ? JSON.parse(readFileSync(path, 'utf8'))
    : {}
  const plots: Record<string, string> = {}
  const markdown: string[] = []
  for (const [part, unit] of Object.entries(parts)) {
    const { machine, results = [] } = found[part] ?? {}
    if (machine === undefined) continue
    const label = `${machine.cpu}, Linux ${machine.kernel}; commit ${machine.commit}, ${machine.at.slice(0, 16).replace('T', ' ')} UTC, load ${machine.load}`
    for (const kind of new Set(results.map((row) => String(row['kind'])))) {
      const rows = results.filter((row) => row['kind'] === kind)
      const names = Object.keys(rows[0] ?? {}).filter((name) => !described.has(name))
      const file = `rules-${kind.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')}.svg`
      // A second host without a filter differs by noise around zero, which has no logarithm.
      const drawn = names.filter((name) => name !== 'none again')
      plots[file] = curves(kind, `${unit} beyond no filter`, rows, drawn)
      const cells = (name: string) => [name, ...rows.map((row) => figures(Number(row[name])))]
      const head = ['rules', ...rows.map((row) => figures(Number(row['rules'])))]
      markdown.push(
        `**${kind}**: ${unit}, without a filter, and what each adds (${label}).`,
        table(head, [cells('none'), ...names.map(cells)]),
        `![${kind}](${file})`,
      )
    }
  }
  return { markdown: markdown.join('\n\n') || 'Not measured: `scripts/bench rules`.', plots }
}
