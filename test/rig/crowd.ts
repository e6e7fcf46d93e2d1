import { fixture } from './fixture.ts'
import type { Host, Program } from './host.ts'

/** What became of many connections; see fixtures/crowd.c. */
export interface CrowdResult {
  readonly succeeded: number
  readonly failed: number
  /** Nothing came for ten seconds. */
  readonly unanswered: number
  /** Took more than a second. */
  readonly stalled: number
  readonly slowestMs: number
  /** The last one: what it was, when, and from which port. */
  readonly error: string
}

export interface CrowdOptions {
  readonly address: string
  readonly port: number
  readonly count: number
  /** At a time. */
  readonly parallel: number
}

async function spawn(host: Host, mode: 'short' | 'hold', options: CrowdOptions): Promise<Program> {
  const { address, port, count, parallel } = options
  return host.spawn(await fixture('crowd'), [mode, address, `${port}`, `${count}`, `${parallel}`])
}

/** Connections of one byte each way. */
export async function shortConnections(host: Host, options: CrowdOptions): Promise<CrowdResult> {
  const program = await spawn(host, 'short', options)
  const { code, stdout, stderr } = await program.exited
  if (code !== 0) throw new Error(`crowd: exit ${code}: ${stderr.trim()}`)
  return JSON.parse(stdout) as CrowdResult
}

/** Connections that stay open together. Resolves when all that can be are. */
export async function holdConnections(
  host: Host,
  options: CrowdOptions,
): Promise<{ held: number; exchange: () => Promise<CrowdResult> }> {
  const program = await spawn(host, 'hold', options)
  const held = () => /^held (\d+)$/m.exec(program.stdout)?.[1]
  await program.until(() => held() !== undefined, 'all connections to be open', 40_000)
  const exchange = async () => {
    program.child.stdin?.end('\n')
    await program.exited
    return program.events.at(-1) as CrowdResult
  }
  return { held: Number(held()), exchange }
}
