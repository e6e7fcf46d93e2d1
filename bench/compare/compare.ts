// The same traffic on all sides of a route in turn, back and forth, so that what else the machine does meets all alike.
import { execFileSync } from 'node:child_process'
import { World } from '../../test/rig/world.ts'
import { ends, run } from './measure.ts'
import type { Sample, Traffic } from './results.ts'
import { port, type Ready, type Side } from './side.ts'
import type { Workload } from './workloads.ts'

/** On one line. */
export const reason = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ').slice(0, 300)

/** Starts a side in a world of its own, for as long as the stack. */
export async function open(stack: AsyncDisposableStack, side: Side): Promise<Ready> {
  const world = stack.use(await World.create({ congestion: 'machine' }))
  const server = world.internet.spawn('taskset', ['-c', '0', ends, 'serve', `${port}`])
  await server.until(({ stdout }) => stdout.includes('ready'), 'the server')
  await side.steer?.(world)
  const program = await side.start?.(world, stack)
  const ready = { side, world, wrap: side.wrap?.(stack) ?? [], ...(program && { pid: program.pid }) }
  await side.check?.(ready)
  return ready
}

/** Starts all that can be; worlds are made at once, for that is most of the time. */
export async function openAll(
  stack: AsyncDisposableStack,
  sides: readonly Side[],
  failed: (side: Side, why: string) => void,
): Promise<Ready[]> {
  const ready = await Promise.all(
    sides.map((side) =>
      open(stack, side).catch((error: unknown) => {
        failed(side, reason(error))
      }),
    ),
  )
  return ready.filter((it) => it !== undefined)
}

/** What compilers in a process make faster with use is made so before anything is measured. What fails, fails again later. */
export async function warmUp(
  sides: readonly Ready[],
  workloads: readonly Workload[],
  ms: number,
): Promise<void> {
  for (const workload of workloads) for (const side of sides) await run(side, workload, ms).catch(() => {})
}

/** Moves all threads of the proxies. */
function pin(sides: readonly Ready[], cpu: number): void {
  for (const { pid } of sides)
    try {
      if (pid !== undefined) execFileSync('taskset', ['-apc', `${cpu}`, `${pid}`], { stdio: 'ignore' })
    } catch {
      // It has ended; its traffic will say so.
    }
}

/** A side that fails is left out of this workload's further rounds. */
export async function compare(
  sides: readonly Ready[],
  workload: Workload,
  { rounds, ms }: { rounds: number; ms: number },
): Promise<Traffic[]> {
  if (workload.oneCpu) pin(sides, 0)
  const found = sides.map((ready) => ({ ready, samples: [] as Sample[], failed: '' }))
  for (let round = 0; round < rounds; round++)
    for (const it of round % 2 === 0 ? found : found.toReversed()) {
      if (it.failed !== '') continue
      try {
        it.samples.push(await run(it.ready, workload, ms * (workload.times ?? 1)))
      } catch (error) {
        it.failed = reason(error)
      }
    }
  if (workload.oneCpu) pin(sides, 1)
  return found.map(({ ready: { side }, samples, failed }) => ({
    route: side.route,
    workload: workload.title,
    side: side.name,
    rounds: samples,
    ...(failed !== '' && { failed }),
  }))
}
