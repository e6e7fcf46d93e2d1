// Bars and lines as SVG: two shapes, for which a plotting library would be larger than all of the benchmark.
import { grid, label, ratio } from './report.ts'
import type { Results } from './results.ts'
import type { Route } from './side.ts'

const colours = [
  '#4c78a8',
  '#f58518',
  '#54a24b',
  '#e45756',
  '#72b7b2',
  '#b279a2',
  '#eeca3b',
  '#9d755d',
  '#ff9da6',
  '#79706e',
]
const colour = (at: number) => colours[at % colours.length] ?? '#000'
const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

function svg(width: number, height: number, parts: readonly string[]): string {
  const open = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="sans-serif" font-size="12">`
  return `${[open, '<rect width="100%" height="100%" fill="#fff"/>', ...parts, '</svg>'].join('\n')}\n`
}

const text = (x: number, y: number, words: string, more = '') =>
  `<text x="${x}" y="${y}" ${more}>${escaped(words)}</text>`
const line = (x1: number, y1: number, x2: number, y2: number, stroke: string) =>
  `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" stroke="${stroke}"/>`

/** Rates beside the first side of the route: a panel for each workload, a bar for each side, whiskers for the bounds. */
export function bars(results: Results, route: Route): string {
  const { sides, workloads, at } = grid(results, route)
  const [first = '', ...others] = sides
  const [columns, bar, left, wide, most] = [3, 14, 190, 210, 1.25]
  const panel = { width: wide + 30, height: others.length * bar + 44 }
  const x = (value: number) => Math.min(value, most) * (wide / most)
  const parts = [text(10, 18, `Beside “${first}” = 1; more is better`, 'font-weight="bold"')]
  workloads.forEach((workload, number) => {
    const [ox, oy] = [
      left + (number % columns) * panel.width,
      34 + Math.floor(number / columns) * panel.height,
    ]
    const bottom = oy + 18 + others.length * bar
    parts.push(text(ox, oy + 12, workload, 'font-weight="bold"'))
    for (const tick of [0, 0.5, 1]) {
      parts.push(line(ox + x(tick), oy + 18, ox + x(tick), bottom, tick === 1 ? '#000' : '#ccc'))
      parts.push(text(ox + x(tick), bottom + 12, `${tick}`, 'text-anchor="middle" font-size="9"'))
    }
    others.forEach((side, row) => {
      const y = oy + 19 + row * bar
      if (number % columns === 0) parts.push(text(left - 8, y + 10, side, 'text-anchor="end"'))
      const [of, base] = [at(side, workload), at(first, workload)]
      if (of === undefined || base === undefined) return
      const { median, low, high } = ratio(of, base, ({ rate }) => rate)
      if (of.failed !== undefined || Number.isNaN(median)) {
        parts.push(text(ox + 4, y + 10, 'failed', 'font-size="10" fill="#900"'))
        return
      }
      const [width, height] = [x(median).toFixed(1), bar - 3]
      parts.push(`<rect x="${ox}" y="${y}" width="${width}" height="${height}" fill="${colour(row)}"/>`)
      parts.push(line(ox + x(low), y + height / 2, ox + x(high), y + height / 2, '#000'))
    })
  })
  const height = 34 + Math.ceil(workloads.length / columns) * panel.height + 16
  parts.push(
    text(10, height - 6, label(results).split(';').slice(0, 2).join(';'), 'font-size="9" fill="#666"'),
  )
  return svg(left + columns * panel.width, height, parts)
}

/** Both axes logarithmic: what lists of rules add. */
export function curves(
  title: string,
  unit: string,
  rows: readonly Readonly<Record<string, string | number>>[],
  names: readonly string[],
): string {
  const [width, height, left, bottom, top] = [620, 360, 60, 320, 36]
  const values = rows.flatMap((row) => names.map((name) => Math.max(1, Number(row[name]))))
  const sizes = rows.map((row) => Number(row['rules']))
  const highest = Math.ceil(Math.log10(Math.max(...values)))
  const lowest = Math.floor(Math.log10(Math.min(...values)))
  const x = (size: number) => left + (Math.log10(size) / Math.log10(Math.max(10, ...sizes))) * 380
  const y = (value: number) =>
    bottom - ((Math.log10(Math.max(1, value)) - lowest) / Math.max(1, highest - lowest)) * (bottom - top)
  const parts = [text(10, 18, `${title}, ${unit}`, 'font-weight="bold"')]
  for (let power = lowest; power <= highest; power++) {
    parts.push(line(left, y(10 ** power), left + 380, y(10 ** power), '#ccc'))
    parts.push(
      text(
        left - 6,
        y(10 ** power) + 4,
        (10 ** power).toLocaleString('en').replaceAll(',', ' '),
        'text-anchor="end" font-size="9"',
      ),
    )
  }
  for (const size of sizes)
    parts.push(text(x(size), bottom + 16, `${size}`, 'text-anchor="middle" font-size="10"'))
  parts.push(text(left + 190, bottom + 32, 'rules', 'text-anchor="middle"'))
  names.forEach((name, at) => {
    const points = rows.map(
      (row) => `${x(Number(row['rules'])).toFixed(1)},${y(Number(row[name])).toFixed(1)}`,
    )
    parts.push(`<polyline points="${points.join(' ')}" fill="none" stroke="${colour(at)}" stroke-width="2"/>`)
    parts.push(text(left + 390, top + 14 + at * 16, name, `fill="${colour(at)}"`))
  })
  return svg(width, height, parts)
}
