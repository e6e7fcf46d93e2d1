// bench/results and the tables in docs/performance.md, made from results.json alone.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { bars } from './plot.ts'
import { report, sections } from './report.ts'
import type { Results } from './results.ts'
import { rulesReport } from './rules.ts'
import { routes } from './side.ts'

/** One line for each round: a change of figures is then a readable one. */
export function writeJson(directory: string, results: Results): void {
  mkdirSync(directory, { recursive: true })
  const text = JSON.stringify(results, undefined, 1)
  const flat = text.replace(/([[{])\n\s+([^[\]{}]*?)\n\s+([\]}])/g, (_, open, inner: string, close) => {
    return `${open} ${inner.replace(/\n\s+/g, ' ')} ${close}`
  })
  writeFileSync(`${directory}/results.json`, `${flat}\n`)
}

/** Tables and plots of a results.json. */
export function writeReport(directory: string): void {
  const results = JSON.parse(readFileSync(`${directory}/results.json`, 'utf8')) as Results
  const rules = rulesReport()
  writeFileSync(`${directory}/report.md`, report(results, rules.markdown))
  for (const route of routes) writeFileSync(`${directory}/${route}.svg`, bars(results, route))
  for (const [file, svg] of Object.entries(rules.plots)) writeFileSync(`${directory}/${file}`, svg)
}

/** Puts tables between `<!-- bench NAME -->` and `<!-- end -->`. */
export function fillPage(page: string, directory: string): void {
  const results = JSON.parse(readFileSync(`${directory}/results.json`, 'utf8')) as Results
  const all: Record<string, string> = {
    ...sections(results),
    rules: rulesReport().markdown.replaceAll('](rules-', '](../bench/results/rules-'),
  }
  const filled = readFileSync(page, 'utf8').replaceAll(
    /<!-- bench ([\w-]+) -->\n[^]*?<!-- end -->/g,
    (_, name: string) => {
      const section = all[name]
      if (section === undefined) throw new Error(`${page}: there are no results named ${name}`)
      return `<!-- bench ${name} -->\n\n${section}\n\n<!-- end -->`
    },
  )
  writeFileSync(page, filled)
}
