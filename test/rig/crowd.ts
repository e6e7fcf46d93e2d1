import type { Child } from './child.ts'
import { fixture } from './fixture.ts'
import type { Host } from './host.ts'

/** What became of many connections; see fixtures/crowd.c. */
export interface CrowdResult {
  readonly succeeded: number
  readonly failed: number
  /** Nothing came for ten seconds. */
  readonly unanswered: number
  /** Took more than a second. */
  readonly stalled: number
  readonly slowestMs: number
  /** The last error. */
  readonly error: string
}

export interface CrowdOptions {
  readonly address: string
  readonly port: number
  readonly count: number
  /** At a time. */
  readonly parallel: number
}

async function spawn(host: Host, mode: 'short' | 'hold', options: CrowdOptions): Promise<Child> {
  const { address, port, count, parallel } = options
  return host.spawn(await fixture('crowd'), [mode, address, `${port}`, `${count}`, `${parallel}`])
}

/** Connections of one byte each way. */
export async function shortConnections(host: Host, options: CrowdOptions): Promise<CrowdResult> {
  const child = await spawn(host, 'short', options)
  return JSON.parse((await child.exited).stdout) as CrowdResult
}

/** Connections that stay open together. Resolves when all that can be are. */
export async function holdConnections(
  host: Host,
  options: CrowdOptions,
): Promise<{ held: number; exchange: () => Promise<CrowdResult> }> {
  const child = await spawn(host, 'hold', options)
  const line = await child.until(/^held \d+$/, 40_000)
  const exchange = async () => {
    child.write('\n')
    await child.exited
    return JSON.parse(child.lines.at(-1) ?? '') as CrowdResult
  }
  return { held: Number(line.slice(5)), exchange }
}
