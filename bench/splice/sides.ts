// The same exchange on several sides in turn, back and forth, so that what else the machine does meets all alike.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import type { World } from '../../test/rig/world.ts'
import { median } from '../rules/report.ts'

const here = new URL('./', import.meta.url).pathname
const [rounds, roundMs] = [10, 500]
export const port = 9000

/** Compiled anew. */
export function buildEnds(): string {
  mkdirSync(`${here}dist`, { recursive: true })
  const ends = `${here}dist/ends`
  execFileSync('gcc', ['-O2', '-Wall', '-D_GNU_SOURCE', '-pthread', '-o', ends, `${here}ends.c`])
  return ends
}

export interface Side {
  readonly name: string
  readonly world: World
  /** Given to the client: where it finds a SOCKS server to speak to by itself. */
  readonly socks?: string
}

/** What is done, by how many at once. */
export interface Exchange {
  readonly title: string
  readonly kind: 'up' | 'down' | 'ping' | 'open'
  readonly connections: number
}

/** Medians: what all clients of a side reach together, per second, and processor time of the whole machine for each. */
export async function measure(
  ends: string,
  sides: readonly Side[],
  { kind, connections }: Exchange,
): Promise<Map<string, { reached: number; cpu: number }>> {
  const all = new Map(sides.map(({ name }) => [name, { reached: [] as number[], cpu: [] as number[] }]))
  for (let round = 0; round < rounds; round++)
    for (const { name, world, socks = '' } of round % 2 === 0 ? sides : sides.toReversed()) {
      const client = `${ends} ${kind} 203.0.113.10 ${port} ${roundMs} ${socks}`
      const script = `for i in $(seq ${connections}); do ${client} & done; wait`
      const before = busySeconds()
      const { stdout, stderr } = await world.client.run('taskset', ['-c', '0', 'sh', '-c', script])
      if (stderr !== '') throw new Error(`${name}, ${kind}: ${stderr}`)
      const reached = stdout
        .trim()
        .split('\n')
        .reduce((sum, line) => sum + Number(line), 0)
      all.get(name)?.reached.push(reached)
      all.get(name)?.cpu.push((busySeconds() - before) / ((reached * roundMs) / 1000))
    }
  return new Map(
    [...all].map(([name, { reached, cpu }]) => [name, { reached: median(reached), cpu: median(cpu) }]),
  )
}

/** All that the processors did, with interrupts; in steps of 10 ms each. */
function busySeconds(): number {
  const [, ...fields] = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '')
    .trim()
    .split(/\s+/)
    .map(Number)
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields
  return (user + nice + system + irq + softirq) / 100
}
