import { execFileSync } from 'node:child_process'
import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { cgroupIds, findCgroup } from '../tc/cgroup.ts'
import { defaultGateway, findInterface } from '../tc/interfaces.ts'
import { withTools } from '../tc/system.ts'
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
  const [user, group] = [idsIn('passwd'), idsIn('group')]
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
    user,
    group,
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

/** The same for a cgroup. No id is that high. */
export function missingCgroup(path: string): bigint {
  return (1n << 62n) | BigInt(hash('sha1', path, 'buffer').readUInt32BE())
}

/** Who does not answer by then is taken not to know, for we stand still meanwhile. */
const patienceMs = 5_000

/**
 * Looks numbers up in passwd(5) or group(5), and asks the system for names that are not there, for they may live in LDAP and
 * the like; once, for that starts a program.
 */
function idsIn(database: 'passwd' | 'group'): (name: string) => number | undefined {
  const asked = new Map<string, number | undefined>()
  return (name) => {
    const found = idOf(name, readFileSync(`/etc/${database}`, 'utf8'))
    if (found !== undefined) return found
    if (!asked.has(name)) asked.set(name, idOf(undefined, getent(database, name)))
    return asked.get(name)
  }
}

/** The third field of the line that has the name in its first, or of any. */
function idOf(name: string | undefined, lines: string): number | undefined {
  for (const line of lines.split('\n')) {
    const [entry, , id = ''] = line.split(':')
    if ((name === undefined || entry === name) && /^\d+$/.test(id)) return Number(id)
  }
  return undefined
}

/** What getent(1) says; nothing for a name that there is not. */
function getent(database: string, name: string): string {
  // It takes for an option what begins with a dash, and for a number what strtoul(3) does.
  if (name.startsWith('-') || !/[^\d\s+-]/.test(name)) return ''
  try {
    return execFileSync('getent', [database, name], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: patienceMs,
      env: withTools(),
    })
  } catch {
    return ''
  }
}
