//   main.ts [--quick]   measures, and writes bench/results and the tables of docs/performance.md
//   main.ts --report    writes them from bench/results/results.json as it is
import { execFileSync } from 'node:child_process'
import { sides } from '../peers/index.ts'
import { measureAll } from './measure-all.ts'
import { fillPage, writeJson, writeReport } from './write.ts'

const results = new URL('../results', import.meta.url).pathname
const page = new URL('../../docs/performance.md', import.meta.url).pathname
const quick = process.argv.includes('--quick')

if (!process.argv.includes('--report')) {
  // Not on the CPU of the proxies.
  execFileSync('taskset', ['-apc', '0', `${process.pid}`], { stdio: 'ignore' })
  const plan = quick
    ? { rounds: 3, roundMs: 50, minutes: 2.2, held: [1000] }
    : { rounds: 10, roundMs: 120, minutes: 12, held: [1000, 7000], toLimit: true }
  await measureAll({ sides, quick, ...plan }, (so) => writeJson(results, so))
}
writeReport(results)
fillPage(page, results)
process.stderr.write(`bench: bench/results/report.md, docs/performance.md\n`)
