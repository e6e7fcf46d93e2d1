//   main.ts             measures, and writes bench/results and the tables of docs/performance.md
//   main.ts --quick     three short rounds, into bench/results/quick
//   main.ts --report    writes them from bench/results/results.json as it is
import { execFileSync } from 'node:child_process'
import { sides } from '../peers/index.ts'
import { measureAll } from './measure-all.ts'
import { fillPage, writeJson, writeReport } from './write.ts'

const quick = process.argv.includes('--quick')
const results = new URL(quick ? '../results/quick' : '../results', import.meta.url).pathname
const page = new URL('../../docs/performance.md', import.meta.url).pathname

if (!process.argv.includes('--report')) {
  // Not on the CPU of the proxies.
  execFileSync('taskset', ['-apc', '0', `${process.pid}`], { stdio: 'ignore' })
  const plan = quick
    ? { rounds: 3, roundMs: 50, minutes: 2.2, held: [1000] }
    : { rounds: 10, roundMs: 50, minutes: 13, held: [7000], toLimit: true }
  const broken = await measureAll({ sides, quick, ...plan }, (so) => writeJson(results, so))
  if (broken.length > 0) process.exitCode = 1
  for (const what of broken) process.stderr.write(`bench: failed: ${what}\n`)
}
writeReport(results)
// A few short rounds are not to stand where whole ones are described.
if (!quick) fillPage(page, results)
process.stderr.write(`bench: ${results}/report.md${quick ? '' : ', docs/performance.md'}\n`)
