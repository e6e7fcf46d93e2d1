// scripts/soak [minutes] [--seed N] [--report FILE]
import { writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { parseArgs } from 'node:util'
import { setup } from '../rig/trial.ts'
import { describe } from './report.ts'
import { Soak } from './soak.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seed: { type: 'string' }, report: { type: 'string' } },
})
const minutes = Number(positionals[0] ?? 60)
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32))
if (!(minutes > 0) || !Number.isInteger(seed) || positionals.length > 1) {
  console.error('soak: scripts/soak [minutes] [--seed NUMBER] [--report FILE]')
  process.exit(2)
}
const path = values.report ?? `${tmpdir()}/soak-${seed}.json`
await setup()
console.log(`soak: seed ${seed}, ${minutes} minutes`)
const report = await Soak.run({ seconds: Math.round(minutes * 60), seed, say: (line) => console.log(line) })
writeFileSync(path, `${JSON.stringify(report, undefined, 2)}\n`)
console.log(`\n${describe(report)}\nreport: ${path}`)
process.exit(report.violations.length === 0 ? 0 : 1)
