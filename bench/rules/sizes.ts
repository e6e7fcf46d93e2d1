import { execFileSync } from 'node:child_process'
import { printTable, writeResults } from './report.ts'
import { alternate, type Costs } from './rounds.ts'
import { makeSides } from './sides.ts'

/** Each under its name, and its bounds under two more. */
const flat = (added: Costs['added']): Record<string, number> =>
  Object.fromEntries(
    Object.entries(added).flatMap(([side, { median, low, high }]) => [
      [side, Math.round(median)],
      [`${side} low`, Math.round(low)],
      [`${side} high`, Math.round(high)],
    ]),
  )

/** Measures kinds of traffic with lists of all sizes; a kind gives the arguments and input of traffic.c. */
export async function measureSizes(
  part: string,
  kinds: Readonly<Record<string, (count: number) => [args: string[], input?: string]>>,
): Promise<void> {
  // Not on the CPU of the traffic.
  execFileSync('taskset', ['-pc', '0', `${process.pid}`])
  const rows: ({ kind: string; rules: number } & Costs)[] = []
  for (const rules of [1, 10, 100, 1000, 10_000]) {
    await using stack = new AsyncDisposableStack()
    const sides = await makeSides(stack, rules)
    for (const [kind, traffic] of Object.entries(kinds))
      rows.push({ kind, rules, ...(await alternate(sides, ...traffic(rules))) })
  }
  for (const kind of Object.keys(kinds))
    printTable(
      `${kind}: ns without a filter, and what each adds`,
      rows
        .filter((row) => row.kind === kind)
        .map(({ rules, none, added }) => ({
          rules,
          none,
          ...Object.fromEntries(Object.entries(added).map(([side, { median }]) => [side, median])),
        })),
    )
  writeResults(
    part,
    rows.map(({ kind, rules, none, added }) => ({ kind, rules, none, ...flat(added) })),
  )
}
