import { mkdirSync } from 'node:fs'
import { fixture } from './fixture.ts'
import type { Host, Program } from './host.ts'

/** What the static C client says of its connection; see fixtures/client.c. */
export interface Dialled {
  /** `fin`, `timeout`, `closed` (by the client itself), or the name of an error such as `ECONNRESET`. */
  readonly end: string
  readonly address: string
  /** Of the client. */
  readonly port: number
  readonly connectMs: number
  readonly sent: number
  readonly received: number
  readonly slowestGapMs: number
  /** Whether what came back was what was sent. */
  readonly equal: boolean
  /** Whether a write failed. */
  readonly broken: boolean
  /** The first bytes received. */
  readonly first: string
}

/** Options of fixtures/client.c. */
export interface Dial {
  readonly bind?: number
  readonly device?: string
  readonly mark?: number
  readonly mptcp?: boolean
  readonly rcvbuf?: number
  readonly maxseg?: number
  readonly send?: string
  readonly echo?: number
  readonly random?: boolean
  readonly shutdown?: boolean
  readonly reset?: boolean
  readonly hold?: boolean
  readonly read?: number
  readonly slow?: number
  readonly timeout?: number
  /** Words that run the client, such as `setpriv` and its options. */
  readonly by?: readonly string[]
}

export type Target = readonly [address: string, port: number]

/** Words that run a program in a cgroup below the host's, made when it is not there. */
export function inCgroup(host: Host, name: string): string[] {
  const path = `${host.cgroup}/${name}`
  mkdirSync(path, { recursive: true })
  return ['bash', '-c', 'echo 0 >"$0/cgroup.procs"; exec "$@"', path]
}

/** The command line of a client. */
async function clientWords([address, port]: Target, { by = [], ...options }: Dial): Promise<string[]> {
  const flags = Object.entries(options).flatMap(([name, value]) => {
    if (value === false) return []
    return value === true ? [`--${name}`] : [`--${name}`, String(value)]
  })
  return [...by, await fixture('client'), ...flags, address, String(port)]
}

/** Opens one connection and tells what became of it. */
export async function dial(host: Host, target: Target, options: Dial = {}): Promise<Dialled> {
  const [command = '', ...args] = await clientWords(target, options)
  const { stdout, stderr, code } = await host.run(command, args, {
    timeoutMs: Math.max(60_000, (options.timeout ?? 0) + 5_000),
  })
  if (code !== 0) throw new Error(`client: exit ${code}: ${stderr}`)
  return JSON.parse(stdout) as Dialled
}

/** Opens a connection that waits, before it sends or reads anything, for `release`. */
export async function holdDial(
  host: Host,
  target: Target,
  options: Dial = {},
): Promise<{ program: Program; release: () => Promise<Dialled> }> {
  const [command = '', ...args] = await clientWords(target, { ...options, hold: true })
  const program = host.spawn(command, args)
  await program.until(({ stdout }) => stdout.includes('connected'), 'a connection')
  const release = async () => {
    program.child.stdin?.end('\n')
    await program.exited
    return program.events.at(-1) as Dialled
  }
  return { program, release }
}
