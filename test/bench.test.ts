import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, expect, test } from 'vitest'
import { measureAll } from '../bench/compare/measure-all.ts'
import type { Results } from '../bench/compare/results.ts'
import { coverage, estimate } from '../bench/compare/statistics.ts'
import { workloads } from '../bench/compare/workloads.ts'
import { fillPage, writeJson, writeReport } from '../bench/compare/write.ts'
import { none } from '../bench/peers/none.ts'
import { tproxy } from '../bench/peers/tproxy.ts'
import { compiled } from '../bench/rules/report.ts'

const directory = mkdtempSync(`${tmpdir()}/bench-`)
afterAll(() => rmSync(directory, { recursive: true }))

const broken = {
  name: 'a broken one',
  route: 'origin',
  setup: 'does not start',
  start: () => Promise.reject(new Error('on purpose')),
} as const

test('the benchmark compares two sides, notes a third that fails, and writes tables and plots', async () => {
  const splice = tproxy.find(({ name }) => name === 'tproxy splice')
  const first = [none[0], splice].filter((side) => side !== undefined)
  const absent = { ...broken, name: 'an absent one', apt: 'tproxy-no-such-package' }
  await measureAll(
    {
      sides: [...first, broken, absent],
      quick: true,
      rounds: 3,
      roundMs: 50,
      minutes: 1,
      workloads: workloads.filter(({ title }) => title === 'up'),
      held: [],
    },
    (results) => writeJson(directory, results),
  )
  const { traffic, sides, notes } = JSON.parse(readFileSync(`${directory}/results.json`, 'utf8')) as Results
  expect(traffic.map(({ side, rounds, failed }) => ({ side, rounds: rounds.length, failed }))).toEqual([
    { side: 'no proxy', rounds: 3, failed: undefined },
    { side: 'tproxy splice', rounds: 3, failed: undefined },
  ])
  // Bytes a second, received and compared: no machine that runs this carries less.
  for (const { rounds } of traffic)
    expect(estimate(rounds.map(({ rate }) => rate)).median).toBeGreaterThan(1e6)
  expect(notes).toEqual(['origin, a broken one does not start: on purpose'])
  expect(sides.at(-1)?.absent).toBe('tproxy-no-such-package is not installed')

  writeReport(directory)
  expect(readFileSync(`${directory}/report.md`, 'utf8')).toMatch(/\| tproxy splice \| \d+\.\d+ \(\d/)
  expect(readFileSync(`${directory}/origin.svg`, 'utf8')).toMatch(/<rect x="190" .*\n<line /)
  writeFileSync(`${directory}/page.md`, 'before\n<!-- bench sides -->\nold\n<!-- end -->\nafter\n')
  fillPage(`${directory}/page.md`, directory)
  expect(readFileSync(`${directory}/page.md`, 'utf8')).toMatch(
    /^before\n<!-- bench sides -->\n\n\| {2}\| route [^]*\n\n<!-- end -->\nafter\n$/,
  )
})

test('bounds of a median are the order statistics that hold it with 95 %, or all values of a few', () => {
  expect(estimate([10, 1, 9, 2, 8, 3, 7, 4, 6, 5])).toEqual({ median: 5.5, low: 2, high: 9 })
  expect(coverage(10)).toBeCloseTo(1 - 22 / 1024)
  expect(estimate([3, 1, 2])).toEqual({ median: 2, low: 1, high: 3 })
  expect(coverage(3)).toBe(0.75)
})

test.each(['classify.bpf.c', 'empty.bpf.c', 'recall.bpf.c', 'traffic.c'])(
  'bench/rules/%s compiles with the headers of today',
  (source) => expect(readFileSync(compiled(source)).length).toBeGreaterThan(0),
)
