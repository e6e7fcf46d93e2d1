import { readFileSync } from 'node:fs'
import type { World } from '../../test/rig/world.ts'
import { compiled } from './compiled.ts'
import type { Sample } from './results.ts'
import { origin, port, type Ready, upstream } from './side.ts'
import type { Workload } from './workloads.ts'

export const ends: string = compiled('ends')

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

/** Words for taskset: traffic on one CPU, for so long. */
export function traffic({ side, wrap }: Ready, { kind, connections, size }: Workload, ms: number): string[] {
  const asks = side.asks === undefined ? [] : [side.asks, upstream]
  return ['-c', '0', ...wrap, ends, ...[kind, origin, port, ms, connections, size].map(String), ...asks]
}

/** Runs it; throws if a byte is not what it should be, or nothing comes for five seconds. */
export async function run(ready: Ready, workload: Workload, ms: number): Promise<Sample> {
  const { world } = ready
  const { kind } = workload
  const [before, sentBefore] = [processors(), retransmits(world)]
  const { code, stdout, stderr } = await world.client.run('taskset', traffic(ready, workload, ms), {
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
