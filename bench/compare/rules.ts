// What bench/rules measured, in the same report: its tables and curves.
import { existsSync, readFileSync } from 'node:fs'
import type { Machine } from './machine.ts'
import { curves } from './plot.ts'
import { figures, table } from './report.ts'

type Row = Readonly<Record<string, string | number>>
const path = new URL('../rules/results.json', import.meta.url)
const parts = { datagrams: 'ns a datagram', connections: 'ns each' }
const described = /^(kind|rules|none)$| (low|high)$/
const figure = (row: Row | undefined, name: string) => figures(Number(row?.[name]))

interface Part {
  readonly machine: Machine
  readonly results: readonly Row[]
}

const labelOf = ({ machine }: Part) =>
  `${machine.cpu}, Linux ${machine.kernel}; commit ${machine.commit}, ${machine.at.slice(0, 16).replace('T', ' ')} UTC, load ${machine.load}`

/** Rows of a result become columns. */
function across(rows: readonly Row[], lines: Readonly<Record<string, string>>): string {
  const cells = Object.entries(lines).map(([title, name]) => [title, ...rows.map((row) => figure(row, name))])
  return table(['rules', ...rows.map((row) => figure(row, 'rules'))], cells)
}

function lookup(part: Part): string[] {
  const titles = { 4: 'IPv4', 6: 'IPv6', mixed: 'both, half each' }
  return Object.entries(titles).flatMap(([family, title]) => [
    `**The look-up alone, ${title}**: ns a packet beyond an empty program, each packet of another flow (${labelOf(part)}).`,
    across(
      part.results.filter((row) => String(row['family']) === family),
      {
        ours: 'ns',
        'linear search': 'linearNs',
        'compiled in, ms': 'compileMs',
        'bytes of the list': 'bytes',
        'of its map': 'mapBytes',
        'swapped in, ms': 'swapMs',
      },
    ),
  ])
}

function established(part: Part): string[] {
  const hooks = ['wan_egress', 'splice_egress', 'splice_ingress']
  return [
    `**A packet of an established connection that is left alone**: ns in each program, less those of an empty one (${labelOf(part)}).`,
    across(part.results, Object.fromEntries(hooks.map((hook) => [`\`${hook}\``, hook]))),
  ]
}

function recall(part: Part): string[] {
  return [
    `**A verdict that is remembered**: ns of the look at a connection's SYN (${labelOf(part)}).`,
    table(
      part.results.map((row) => String(row['what'])),
      [part.results.map((row) => figure(row, 'ns'))],
    ),
  ]
}

/** Empty, where bench/rules has not been run. */
export function rulesReport(): { markdown: string; plots: Record<string, string> } {
  const found: Record<string, Part> = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {}
  const plots: Record<string, string> = {}
  const markdown: string[] = []
  for (const [name, describe] of Object.entries({ lookup, established, recall }))
    if (found[name] !== undefined) markdown.push(...describe(found[name]))
  for (const [name, unit] of Object.entries(parts)) {
    const part = found[name]
    if (part === undefined) continue
    const { results } = part
    for (const kind of new Set(results.map((row) => String(row['kind'])))) {
      const rows = results.filter((row) => row['kind'] === kind)
      const names = Object.keys(rows[0] ?? {}).filter((name) => !described.test(name))
      const file = `rules-${kind.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')}.svg`
      // A second host without a filter differs by noise around zero, which has no logarithm.
      const drawn = names.filter((name) => name !== 'none again')
      plots[file] = curves(kind, `${unit} beyond no filter`, rows, drawn)
      const cell = (row: Row, name: string) =>
        row[`${name} low`] === undefined
          ? figure(row, name)
          : `${figure(row, name)} (${figure(row, `${name} low`)}–${figure(row, `${name} high`)})`
      const cells = (name: string) => [name, ...rows.map((row) => cell(row, name))]
      const head = ['rules', ...rows.map((row) => figure(row, 'rules'))]
      markdown.push(
        `**${kind}**: ${unit}, without a filter, and what each adds (${labelOf(part)}).`,
        table(head, [cells('none'), ...names.map(cells)]),
        `![${kind}](${file})`,
      )
    }
  }
  return { markdown: markdown.join('\n\n') || 'Not measured: `scripts/bench rules`.', plots }
}
