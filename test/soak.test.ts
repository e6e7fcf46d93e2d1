import { expect, test } from 'vitest'
import { describe } from './soak/report.ts'
import { Soak } from './soak/soak.ts'

// Ten minutes of it: scripts/test slow; an hour: scripts/soak.
test('a few seconds of everything break no promise', async () => {
  const seed = Math.floor(Math.random() * 2 ** 32)
  const report = await Soak.run({ seconds: 8, seed, say: () => {} })
  expect(report.violations, describe(report)).toEqual([])
  const programs = Object.values(report.programs)
  expect(programs.reduce((sum, { whole }) => sum + whole, 0)).toBeGreaterThan(10)
}, 110_000)
