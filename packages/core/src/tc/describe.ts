import type { Flow, Owner } from '@tproxy/bpf'
import type { ProcessInfo } from '../process.ts'
import type { Accepted } from '../transport.ts'
import { CgroupPaths } from './cgroup.ts'
import type { KernelRules } from './rules.ts'

/** What is known of a connection besides its ends. Of one that the kernel has forgotten, what the rules say of its ends now. */
export function describeFlow(
  flow: Flow | undefined,
  ends: Pick<Accepted, 'source' | 'destination' | 'interface'>,
  describe: (owner: Owner) => ProcessInfo | undefined,
  rules: KernelRules,
): Pick<Accepted, 'process' | 'rule' | 'via'> {
  if (flow === undefined) {
    const { via } = rules.judge(ends)
    return via === undefined ? {} : { via }
  }
  const process = describe(flow.owner)
  const via = rules.ruleOf(flow.generation, flow.rule)?.via
  return {
    ...(flow.rule !== 0 && { rule: flow.rule }),
    ...(via !== undefined && { via }),
    ...(process !== undefined && { process }),
  }
}

/**
 * Who a program is, with the path of its cgroup; undefined where nobody saw who: it sent a datagram, began to connect before we
 * looked, or is outside of our pid namespace.
 */
export function describer(): (owner: Owner) => ProcessInfo | undefined {
  let paths: CgroupPaths | undefined
  return ({ pid, name, uid, gid, cgroup }) => {
    if (pid === 0) return undefined
    paths ??= new CgroupPaths()
    return { pid, name, uid, gid, cgroup: paths.find(cgroup, pid) }
  }
}
