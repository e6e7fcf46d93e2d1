import { libbpfVersion } from '@tproxy/bpf'
import { reason, TproxyError } from '../errors.ts'
import type { FastpathMode } from '../options.ts'
import { tryFastpath } from './fastpath.ts'
import { instances } from './instances.ts'
import { loadSplicing, loadSteering } from './programs.ts'
import { checkClashes, type RoutingOptions, routingOptions } from './routing.ts'
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
  /** Throws `E_CLASH` when routing mark, table or priority are somebody else's. */
  routing(): void
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
    routing: () => checkClashes(routing),
    instances,
  }
}
