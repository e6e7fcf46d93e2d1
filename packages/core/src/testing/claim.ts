import { endpoint } from '../endpoint.ts'
import type { ProcessInfo } from '../process.ts'
import type { Accepted } from '../transport.ts'

/** What a connection claims to be. */
export interface Claim {
  readonly destination: { readonly address: string; readonly port: number }
  /** What is left out is made up. Without a process there is none, as for a transport of your own. */
  readonly process?: Partial<ProcessInfo>
  readonly interface?: string
  readonly rule?: number
  /** The plugin that the rule names. */
  readonly via?: string
}

const someProcess: ProcessInfo = { pid: 4711, name: 'program', uid: 1000, gid: 1000, cgroup: undefined }

/** What a transport says of it. */
export function claimed({
  destination,
  process,
  ...rest
}: Claim): Omit<Accepted, 'socket' | 'source' | 'direct'> {
  return {
    ...rest,
    destination: endpoint(destination.address, destination.port),
    ...(process && { process: { ...someProcess, ...process } }),
  }
}
