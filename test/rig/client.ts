import type { Child } from './child.ts'
import { fixture } from './fixture.ts'
import type { Host, RunOptions, SpawnOptions } from './host.ts'

/** What the static C client says of its connection; see fixtures/client.c. */
export interface Dialled {
  /** `fin`, `timeout`, `closed` (by the client itself), or the name of an error such as `ECONNRESET`. */
  readonly end: string
  readonly address: string
  /** Of the client. */
  readonly port: number
  readonly connectMs: number
  readonly received: number
  readonly slowestGapMs: number
  /** Whether what came back was what was sent. */
  readonly equal: boolean
  /** The first bytes received. */
  readonly first: string
}

/** Options of fixtures/client.c. */
export interface Dial {
  readonly bind?: number
  readonly device?: string
  readonly mark?: number
  readonly send?: string
  readonly echo?: number
  readonly shutdown?: boolean
  readonly reset?: boolean
  readonly hold?: boolean
  readonly read?: number
  readonly slow?: number
  readonly timeout?: number
}

export type Target = readonly [address: string, port: number]

function dialArgs([address, port]: Target, options: Dial): string[] {
  const flags = Object.entries(options).flatMap(([name, value]) =>
    value === false ? [] : value === true ? [`--${name}`] : [`--${name}`, String(value)],
  )
  return [...flags, address, String(port)]
}

/** Opens one connection and tells what became of it. */
export async function dial(
  host: Host,
  target: Target,
  options: Dial = {},
  run: RunOptions & { as?: readonly string[] } = {},
): Promise<Dialled> {
  const [command = '', ...args] = [...(run.as ?? []), await fixture('client'), ...dialArgs(target, options)]
  const { stdout, stderr, code } = await host.run(command, args, { timeoutMs: 60_000, ...run })
  if (code !== 0) throw new Error(`client: ${stderr.trim() || code}`)
  return JSON.parse(stdout) as Dialled
}

/** A connection that is open and waits for {@link HeldDial.release}. */
export class HeldDial {
  readonly child: Child

  static async open(host: Host, target: Target, options: Dial = {}, spawn?: SpawnOptions): Promise<HeldDial> {
    const child = host.spawn(await fixture('client'), dialArgs(target, { ...options, hold: true }), spawn)
    await child.until(/connected/)
    return new HeldDial(child)
  }

  private constructor(child: Child) {
    this.child = child
  }

  /** Lets it go on, as the options say. */
  async release(): Promise<Dialled> {
    this.child.write('\n')
    const { lines } = this.child
    await this.child.exited
    return JSON.parse(lines.at(-1) ?? '') as Dialled
  }
}
