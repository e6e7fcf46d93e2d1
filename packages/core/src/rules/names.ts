import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { cgroupIds, findCgroup } from '../tc/cgroup.ts'
import { defaultGateway, findInterface } from '../tc/interfaces.ts'
import type { RedirectTarget } from './resolved.ts'

/** What names in rules stand for on this host, now. */
export interface Names {
  interface(name: string): Omit<RedirectTarget, 'into'> | undefined
  user(name: string): number | undefined
  group(name: string): number | undefined
  /**
   * Ids of a cgroup and those above it, the highest first, by its path below the mount or its systemd unit; undefined while
   * there is none.
   */
  cgroup(path: string): readonly bigint[] | undefined
}

/** Looks names up on this host. Nothing is remembered from one object to the next. */
export function systemNames(): Names {
  const interfaces = new Map<string, ReturnType<Names['interface']>>()
  return {
    interface(name) {
      if (!interfaces.has(name)) {
        const found = findInterface(name)
        interfaces.set(
          name,
          found && {
            ifindex: found.ifindex,
            mac: found.hasMac ? found.mac : undefined,
            gateway: defaultGateway(name),
          },
        )
      }
      return interfaces.get(name)
    },
    user: (name) => idIn('/etc/passwd', name),
    group: (name) => idIn('/etc/group', name),
    cgroup(path) {
      const found = findCgroup(path)
      return found === undefined ? undefined : cgroupIds(found)
    },
  }
}

/**
 * The number that stands for an interface that does not exist. No interface has one above 2^31, so that rules for it match
 * nothing; and each name has its own, so that a rule for one does not look like a rule for another.
 */
export function missingInterface(name: string): number {
  return (hash('sha1', name, 'buffer').readUInt32BE() | 0x8000_0000) >>> 0
}

/** The third field of passwd(5) and group(5). */
function idIn(file: string, name: string): number | undefined {
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const [entry, , id] = line.split(':')
    if (entry === name && id !== undefined) return Number(id)
  }
  return undefined
}
