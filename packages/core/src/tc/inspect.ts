import { isIP } from 'node:net'
import { libbpfVersion } from '@tproxy/bpf'
import { reason, TproxyError } from '../errors.ts'
import type { FastpathMode } from '../options.ts'
import { ownCgroup } from './cgroup.ts'
import { tryFastpath } from './fastpath.ts'
import { instances } from './instances.ts'
import { requireBpfFileSystem } from './keep.ts'
import { listeningSockets, localAddresses } from './listeners.ts'
import { loadSplicing, loadSteering } from './programs.ts'
import { writableRecordsDirectory } from './records-directory.ts'
import { checkClashes, type RoutingOptions, routingOptions, routingRules } from './routing.ts'
import { ip } from './system.ts'
import { tryAndRecord } from './trial/known.ts'

/** Looks at what interception needs, and changes nothing: for `tproxy-run doctor`, and for yours. */
export interface Inspection {
  /** The version of libbpf. Throws `E_LIBRARY`. */
  libbpf(): string
  /** Loads the programs, which has the kernel verify them, and unloads them. Throws what interception would. */
  programs(): void
  /** The same for those that carry connections in the kernel, without which they are relayed. */
  splice(): void
  /**
   * Has them carry connections in a network namespace of their own, and records the outcome in /run/tproxy, where the next
   * start finds it. Resolves with what is not right, if anything. Rejects when it cannot be tried: it needs CAP_SYS_ADMIN.
   */
  trial(): Promise<string | undefined>
  /** Loads those of the fastpath and tries them on a connection of our own over loopback. Rejects with what is not right. */
  fastpath(mode: Exclude<FastpathMode, 'off'>): Promise<void>
  /**
   * Rejects with `E_UPSTREAM` for an address to which no route leads, or one of this host where nobody listens. Sends nothing,
   * and so takes any host name but localhost for good.
   */
  upstream(address: { readonly host: string; readonly port: number }): Promise<void>
  /** Throws `E_SYSTEM` where spliced connections cannot be kept, for want of a bpf file system. */
  keep(): void
  /** Throws `E_CLASH` when routing mark, table or priority are somebody else's. */
  routing(): void
  /** Where records of what runs and of what to undo are kept. Throws `E_SYSTEM` when none can be. */
  records(): string
  /** The cgroup that {@link makeCgroup} makes its own in. Throws `E_KERNEL` without cgroup v2. */
  cgroup(): string
  /** Who intercepts in this network namespace, and how much dead instances left behind. */
  instances(): { readonly living: readonly number[]; readonly leftBehind: number; readonly kept: number }
}

export function inspect(options: RoutingOptions = {}): Inspection {
  const routing = routingOptions(options)
  return {
    libbpf: () => {
      try {
        return libbpfVersion()
      } catch (cause) {
        throw new TproxyError('E_LIBRARY', reason(cause), { cause })
      }
    },
    programs: () => loadSteering(routing.mark, true).close(),
    splice: () => loadSplicing({ mark: routing.mark }).close(),
    trial: tryAndRecord,
    fastpath: tryFastpath,
    upstream: findUpstream,
    keep: () => void requireBpfFileSystem(),
    routing: () => checkClashes(routing, routingRules()),
    records: writableRecordsDirectory,
    cgroup: ownCgroup,
    instances,
  }
}

async function findUpstream({ host, port }: { host: string; port: number }): Promise<void> {
  if (isIP(host) === 0 && host !== 'localhost') return
  const local = await localAddresses(host)
  const sockets = await Promise.all(local.map((address) => listeningSockets(address, port)))
  if (sockets.some(({ size }) => size > 0)) return
  if (local.length > 0)
    throw new TproxyError('E_UPSTREAM', `nobody listens at ${host}:${port} now`, {
      hint: 'connections for it are refused until somebody does',
    })
  try {
    ip(['route', 'get', host])
  } catch (cause) {
    throw new TproxyError('E_UPSTREAM', `no route leads to ${host} now`, {
      hint: 'connections for it are refused until one does; see: ip route',
      cause,
    })
  }
}
