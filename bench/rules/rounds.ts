import { type Estimate, estimate } from '../compare/statistics.ts'
import { compiled, median } from './report.ts'
import type { Side } from './sides.ts'

const rounds = 10
const roundMs = 30

/** Of one packet, exchange or connection. */
export interface Costs {
  /** Without a filter. */
  readonly none: number
  /** What each other side adds to that. */
  readonly added: Readonly<Record<string, Estimate>>
}

/**
 * Traffic (see traffic.c) of all sides in turn, back and forth. The medians of differences to no filter in the same round: what
 * else the machine does changes over seconds.
 */
export async function alternate(sides: readonly Side[], args: readonly string[], input = ''): Promise<Costs> {
  const program = compiled('traffic.c')
  const [mode = '', ...rest] = args
  await using stack = new AsyncDisposableStack()
  const runs = sides.map(({ name, client, internet }) => {
    const words = [program, `${roundMs}`, mode, `/proc/${client.pid}/ns/net`, ...rest]
    // Of two CPUs, the first takes most interrupts.
    const traffic = stack.use(internet.spawn('taskset', ['-c', '1', ...words]))
    traffic.child.stdin?.write(input)
    const lines = (wanted: number) =>
      traffic.until(({ stdout }) => stdout.split('\n').length > wanted, `line ${wanted} of ${name}`)
    return { name, traffic, lines }
  })
  for (const { lines } of runs) await lines(1)
  // The first round finds cold caches and is not counted.
  for (let round = 0; round <= rounds; round++)
    for (const { traffic, lines } of round % 2 === 0 ? runs : runs.toReversed()) {
      traffic.child.stdin?.write('\n')
      await lines(round + 2)
    }
  const measured = runs.map(({ name, traffic }) => ({
    name,
    ns: traffic.stdout.trim().split('\n').slice(2).map(Number),
  }))
  const none = measured.find(({ name }) => name === 'none')?.ns ?? []
  return {
    none: median(none),
    added: Object.fromEntries(
      measured
        .filter(({ name }) => name !== 'none')
        .map(({ name, ns }) => [name, estimate(ns.map((it, round) => it - (none[round] ?? 0)))]),
    ),
  }
}
