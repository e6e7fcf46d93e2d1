// Everything in turn, noted as it comes: what fails is left out and said.
import { readFileSync } from 'node:fs'
import { hold, prepareAll, startUp } from './alone.ts'
import { compare, openAll, reason, warmUp } from './compare.ts'
import { machine, version } from './machine.ts'
import type { Held, Results, SideResult, Traffic } from './results.ts'
import { routes, type Side } from './side.ts'
import { usual, type Workload, warming } from './workloads.ts'

export interface Plan {
  readonly sides: readonly Side[]
  readonly quick: boolean
  readonly rounds: number
  readonly roundMs: number
  /** When no further traffic begins; connections are held for three more at most. */
  readonly minutes: number
  readonly workloads?: readonly Workload[]
  /** How many connections to hold. None: neither memory nor start-up is measured. */
  readonly held: readonly number[]
  /** Whether to hold as many as descriptors allow, too. */
  readonly toLimit?: boolean
}

/** What a process that holds connections has open besides, and more. */
const otherFiles = 1000

const say = (text: string) => process.stderr.write(`bench: ${text}\n`)

/**
 * Calls `save` with all results so far, whenever there are more. Resolves with what failed of ours, and of the ends by themselves:
 * of a peer, it is a result.
 */
export async function measureAll(plan: Plan, save: (results: Results) => void): Promise<string[]> {
  const began = performance.now()
  const minutes = () => (performance.now() - began) / 60_000
  const own = machine()
  const traffic: Traffic[] = []
  const notes: string[] = []
  let held: readonly Held[] = []
  let startUps: Results['startUp'] = []
  const described = plan.sides.map(({ name, route, setup, apt }): SideResult => {
    const found = apt === undefined ? undefined : version(apt)
    const absent = apt !== undefined && found === undefined && `${apt} is not installed`
    return { name, route, setup, ...(found && { version: found }), ...(absent && { absent }) }
  })
  const present = plan.sides.filter((_, at) => described[at]?.absent === undefined)
  for (const { name, absent } of described) if (absent !== undefined) say(`${name} is left out: ${absent}`)
  const broken: string[] = []
  const note = (text: string, side?: Side) => {
    say(text)
    notes.push(text)
    if (side !== undefined && side.apt === undefined) broken.push(text)
  }
  const keep = () => {
    const { quick, rounds, roundMs } = plan
    save({
      machine: own,
      quick,
      rounds,
      roundMs,
      minutes: Number(minutes().toFixed(1)),
      sides: described,
      traffic,
      startUp: startUps,
      held,
      notes,
    })
  }

  for (const route of routes) {
    await using stack = new AsyncDisposableStack()
    const chosen = present.filter((side) => side.route === route)
    const ready = await openAll(stack, chosen, (side, why) =>
      note(`${route}, ${side.name} does not start: ${why}`, side),
    )
    if (ready.length === 0) continue
    if (!plan.quick) await warmUp(ready, warming, plan.roundMs)
    for (const workload of plan.workloads ?? usual(route, plan.quick)) {
      if (minutes() > plan.minutes) {
        note(`${route}, ${workload.title}: not measured, ${plan.minutes} minutes were over`)
        continue
      }
      say(`${minutes().toFixed(1)} min: ${route}, ${workload.title}`)
      const compared = await compare(ready, workload, { rounds: plan.rounds, ms: plan.roundMs })
      traffic.push(...compared)
      for (const { side, failed } of compared)
        if (failed !== undefined && chosen.find(({ name }) => name === side)?.apt === undefined)
          broken.push(`${route}, ${workload.title}, ${side}: ${failed}`)
      keep()
    }
  }
  if (plan.held.length > 0) {
    await using stack = new AsyncDisposableStack()
    const failed = (side: Side, why: string) => note(`by itself, ${side.name}: ${why}`, side)
    const chosen = present.filter(({ route }) => route === 'origin')
    const idle = await prepareAll(stack, chosen, failed)
    say(`start-up of ${idle.length} sides`)
    startUps = await startUp(idle, plan.quick ? 1 : plan.rounds, failed)
    const limit = Number(/^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
    const most = idle.flatMap((it) => {
      const { descriptors } = it.side
      const count = Math.floor((limit - otherFiles) / (descriptors ?? 1))
      return plan.toLimit && descriptors !== undefined ? [{ it, count }] : []
    })
    for (const { it, count } of [
      ...plan.held.flatMap((each) => idle.map((it) => ({ it, count: each }))),
      ...most,
    ])
      try {
        if (minutes() < plan.minutes + 3) held = [...held, await hold(it, count)]
        else note(`${it.side.name}, ${count} connections: not measured, the time was over`)
      } catch (error) {
        note(`${it.side.name}, ${count} connections: ${reason(error)}`, it.side)
      }
  }
  keep()
  return broken
}
