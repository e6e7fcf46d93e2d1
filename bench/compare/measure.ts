import { readFileSync } from 'node:fs'
import type { World } from '../../test/rig/world.ts'
import { compiled } from './compiled.ts'
import type { Sample } from './results.ts'
import { origin, port, type Side, upstream } from './side.ts'
import type { Workload } from './workloads.ts'

export const ends: string = compiled('ends')

/** A side in a world of its own, ready. */
export interface Ready {
  readonly side: Side
  readonly world: World
  readonly wrap: readonly string[]
  /** Of the proxy, where there is one. */
  readonly pid?: number
}

/** Seconds that the processors worked, in steps of 10 ms each. */
function processors(): { busy: number; softirq: number } {
  const [, ...fields] = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').split(/\s+/).map(Number)
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields
  return { busy: (user + nice + system + irq + softirq) / 100, softirq: softirq / 100 }
}

/** Segments that the kernel sent again, in both hosts: of the ends and of the proxy. */
function retransmits({ client, internet }: World): number {
  return [client, internet]
    .map(({ pid }) => {
      const [names, values] = readFileSync(`/proc/${pid}/net/snmp`, 'utf8')
        .split('\n')
        .filter((line) => line.startsWith('Tcp:'))
        .map((line) => line.split(' '))
      return Number(values?.[names?.indexOf('RetransSegs') ?? 0])
    })
    .reduce((sum, count) => sum + count, 0)
}

const rounded = (value: number) => Number(value.toPrecision(5))

/** Traffic on one CPU, for so long; throws if a byte is not what it should be, or nothing comes for five seconds. */
export async function run({ side, world, wrap }: Ready, workload: Workload, ms: number): Promise<Sample> {
  const { kind, connections, size } = workload
  const asks = side.asks === undefined ? [] : [side.asks, upstream]
  const words = [...wrap, ends, ...[kind, origin, port, ms, connections, size].map(String), ...asks]
  const [before, sentBefore] = [processors(), retransmits(world)]
  const { code, stdout, stderr } = await world.client.run('taskset', ['-c', '0', ...words], {
    timeoutMs: 10_000,
  })
  const [after, sent] = [processors(), retransmits(world)]
  if (code !== 0) throw new Error(stderr.trim() || 'it did not end within ten seconds')
  const { done, seconds, p50, p99 } = JSON.parse(stdout)
  const units = kind === 'up' || kind === 'down' ? done / 1e9 : done
  return {
    rate: rounded(done / seconds),
    p50,
    p99,
    cpu: rounded((after.busy - before.busy) / units),
    softirq: rounded((after.softirq - before.softirq) / units),
    retransmits: sent - sentBefore,
  }
}
