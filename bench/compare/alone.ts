// What a proxy costs by itself: until it can be used, and for connections that are only open.
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { holdConnections } from '../../test/rig/crowd.ts'
import { residentMb } from '../../test/rig/process.ts'
import { World } from '../../test/rig/world.ts'
import { reason } from './compare.ts'
import type { Held, Results } from './results.ts'
import { origin, type Side } from './side.ts'

/** A side in a world of its own, not started. */
interface Idle {
  readonly side: Side
  readonly world: World
}

type Failed = (side: Side, why: string) => void

export async function prepareAll(
  stack: AsyncDisposableStack,
  sides: readonly Side[],
  failed: Failed,
): Promise<Idle[]> {
  const idle: Idle[] = []
  for (const side of sides)
    try {
      const world = stack.use(await World.create())
      await side.steer?.(world)
      idle.push({ side, world })
    } catch (error) {
      failed(side, reason(error))
    }
  return idle
}

/**
 * Milliseconds from the start of each process until it can be used, all in turn, back and forth; `first` the first time that
 * its host has it.
 */
export async function startUp(
  idle: readonly Idle[],
  rounds: number,
  failed: Failed,
): Promise<Results['startUp']> {
  const found = idle
    .filter(({ side }) => side.start !== undefined)
    .map((it) => ({ ...it, ms: [] as number[], broken: false }))
  for (let round = 0; round <= rounds; round++)
    for (const it of round % 2 === 0 ? found : found.toReversed()) {
      if (it.broken) continue
      try {
        await using stack = new AsyncDisposableStack()
        const start = performance.now()
        const program = await it.side.start?.(it.world, stack)
        it.ms.push(Math.round(performance.now() - start))
        await program?.stop()
      } catch (error) {
        it.broken = true
        failed(it.side, `start: ${reason(error)}`)
      }
    }
  return found.flatMap(({ side, ms: [first, ...ms] }) =>
    first === undefined ? [] : [{ side: side.name, first, ms }],
  )
}

const slabKb = () => Number(/Slab:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1])

/** Opens so many connections to an echo server, and lets each carry 64 bytes there and back in the end. */
export async function hold({ side, world }: Idle, count: number): Promise<Held> {
  await using stack = new AsyncDisposableStack()
  // More than the 28 000 ports that are the default are in use, where both ends of the proxy are on this host.
  await world.client.sh("echo '1024 65535' >/proc/sys/net/ipv4/ip_local_port_range")
  const program = await side.start?.(world, stack)
  if (program !== undefined) stack.use(program)
  const resident = () => (program === undefined ? 0 : Math.round(residentMb(program.pid) * 1024))
  // The kernel frees those of the side before.
  await sleep(500)
  const [beforeKb, before] = [resident(), slabKb()]
  const { held, exchange } = await holdConnections(world.client, {
    address: origin,
    port: 7,
    count,
    parallel: 100,
  })
  // For the client a connection is open before the proxy has accepted it and reached the origin.
  await sleep(1000)
  const [afterKb, after] = [resident(), slabKb()]
  const { succeeded } = await exchange()
  return { side: side.name, connections: held, succeeded, beforeKb, afterKb, slabKb: after - before }
}
