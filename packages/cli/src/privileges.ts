import { readFileSync } from 'node:fs'
import { TproxyError } from '@tproxy/core'

/** What we need, with the numbers of include/uapi/linux/capability.h. CAP_SYS_ADMIN (21) stands for some of them. */
const needed = [
  { name: 'CAP_BPF', bit: 39n, impliedBySysAdmin: true },
  { name: 'CAP_NET_ADMIN', bit: 12n, impliedBySysAdmin: false },
  { name: 'CAP_PERFMON', bit: 38n, impliedBySysAdmin: true },
] as const
const sysAdmin = 21n

/** The capabilities that a process lacks; `status` is its /proc/PID/status. */
export function missingCapabilities(status: string = readFileSync('/proc/self/status', 'utf8')): string[] {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`)
  const has = (bit: bigint) => ((effective >> bit) & 1n) === 1n
  return needed
    .filter(({ bit, impliedBySysAdmin }) => !has(bit) && !(impliedBySysAdmin && has(sysAdmin)))
    .map(({ name }) => name)
}

/** Throws `E_PRIVILEGE` naming what is missing; `more` is to be said to who is told to use sudo. */
export function requirePrivileges(more = '', missing: readonly string[] = missingCapabilities()): void {
  if (missing.length > 0)
    throw new TproxyError('E_PRIVILEGE', `missing ${missing.join(', ')}`, { hint: `run it with sudo${more}` })
}
