import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { reason, TproxyError } from '../errors.ts'
import { removeCgroupNow, sweepCgroups } from './cgroup.ts'
import { endKept, type Kept, kept } from './keep.ts'
import {
  type InstanceRecord,
  readShared,
  records,
  removeRecord,
  removeShared,
  writeRecord,
  writeShared,
} from './records.ts'
import { locked, recordsDirectory } from './records-directory.ts'
import {
  checkClashes,
  planRouting,
  type Routing,
  routingRules,
  routingStands,
  setUpRouting,
  tearDownRouting,
} from './routing.ts'

const instanceLimit = 256

/** One process's place among those that intercept in this network namespace. */
export interface Instance {
  /** 0 to 255: part of the routing mark. */
  readonly number: number
  /**
   * Takes the whole traffic of these interfaces, and no other's any more, while they come, go and get new names. Resolves with
   * those that another process has.
   */
  claim(names: readonly string[]): Promise<{ name: string; pid: number }[]>
  /** Puts back what somebody removed of what all share. Resolves with whether anything was missing. */
  restore(): Promise<boolean>
  close(): Promise<void>
}

/** Registers this process and sets up what all share. Throws `E_BUSY` naming the owner of an interface, or `E_CLASH`. One
 * that `keeps` gets the number of an instance that left connections to the kernel, if there is one.
 */
export function enter(
  routing: Routing,
  scope: { interfaces: readonly string[]; cgroup?: string; keeps: boolean },
): Promise<Instance> {
  return locked((directory) => {
    const living = prune(directory)
    for (const { record } of living) {
      const taken = record.interfaces.find((name) => scope.interfaces.includes(name))
      if (taken !== undefined)
        throw new TproxyError('E_BUSY', `process ${record.pid} already intercepts ${taken}`, {
          hint: `stop it first: kill ${record.pid}`,
        })
    }
    shareRouting(directory, routing)
    const number = freeNumber(
      living.map((each) => each.number),
      scope.keeps,
    )
    if (number === undefined)
      throw new TproxyError('E_BUSY', `${instanceLimit} instances run in this network namespace`, {
        hint: 'stop one of them',
      })
    const record: InstanceRecord = { pid: process.pid, startTime: startTime(process.pid) ?? '', ...scope }
    writeRecord(directory, number, record)
    return {
      number,
      claim: (names) => claim(number, record, names),
      restore: () => restore(routing),
      close: () => leave(number),
    }
  })
}

function claim(
  number: number,
  record: InstanceRecord,
  names: readonly string[],
): Promise<{ name: string; pid: number }[]> {
  return locked((directory) => {
    const all = records(directory)
    // It has left meanwhile.
    if (!all.some((each) => each.number === number && each.record.pid === record.pid)) return []
    const others = all.filter((each) => each.number !== number && lives(each.record))
    const taken = others.flatMap(({ record: { pid, interfaces } }) =>
      interfaces.filter((name) => names.includes(name)).map((name) => ({ name, pid })),
    )
    const interfaces = names.filter((name) => taken.every((each) => each.name !== name))
    writeRecord(directory, number, { ...record, interfaces })
    return taken
  })
}

/** One that nobody has, and nobody left connections to the kernel under: by their marks, two would take each other's. */
function freeNumber(living: readonly number[], keeps: boolean): number | undefined {
  const left = kept().filter(({ number }) => !living.includes(number))
  const adoptable = keeps ? left.filter(({ ours }) => ours) : []
  const [first] = adoptable.filter(({ number }) => left.every((each) => each.number !== number || each.ours))
  if (first !== undefined) return first.number
  const used = new Set([...living, ...left.map(({ number }) => number)])
  return Array.from({ length: instanceLimit }, (_, i) => i).find((number) => !used.has(number))
}

async function restore(routing: Routing): Promise<boolean> {
  if (routingStands(routing)) return false
  return locked((directory) => {
    const shared = readShared(directory)
    if (shared === undefined || routingStands(routing)) return false
    setUpRouting(shared, routingRules())
    return true
  })
}

function leave(number: number): Promise<void> {
  return locked((directory) => {
    removeRecord(directory, number)
    prune(directory)
  })
}

/**
 * Removes what dead instances left behind, and resets the connections that they left to the kernel; what living ones use
 * stays. Returns how many were removed, how many reset, and who lives.
 */
export function clean(): Promise<{ removed: number; ended: number; living: number[] }> {
  return locked(async (directory) => {
    let ended = 0
    for (const each of orphaned(directory)) ended += await endKept(each)
    const before = records(directory).length + (readShared(directory) === undefined ? 0 : 1) + sweepCgroups()
    const living = prune(directory)
    const after = living.length + (readShared(directory) === undefined ? 0 : 1)
    return { removed: before - after, ended, living: living.map(({ record }) => record.pid) }
  })
}

/**
 * Who intercepts in this network namespace, and how much dead instances left behind. Changes nothing. An instance may keep
 * a socket `PID.sock` in the directory, and removes it before it ends.
 */
export function instances(): { directory: string; living: number[]; leftBehind: number; kept: number } {
  const directory = recordsDirectory()
  if (!existsSync(directory))
    return { directory, living: [], leftBehind: 0, kept: orphaned(directory).length }
  const all = records(directory).map(({ record }) => record)
  const living = all.filter(lives)
  const orphans = orphaned(directory).length
  const abandoned = living.length + orphans === 0 && readShared(directory) !== undefined ? 1 : 0
  return {
    directory,
    living: living.map(({ pid }) => pid),
    leftBehind: all.length - living.length + abandoned,
    kept: orphans,
  }
}

/** What nobody but the kernel takes care of. */
function orphaned(directory: string): Kept[] {
  const owned = new Set(
    (existsSync(directory) ? records(directory) : [])
      .filter(({ record }) => record.keeps && lives(record))
      .map(({ number }) => number),
  )
  return kept().filter(({ number }) => !owned.has(number))
}

function lives(record: InstanceRecord): boolean {
  return record.startTime !== '' && startTime(record.pid) === record.startTime
}

/** Drops the records of dead instances with their cgroups and sockets; once nobody is left, what was shared is undone. */
function prune(directory: string): { number: number; record: InstanceRecord }[] {
  const living = records(directory).filter(({ number, record }) => {
    if (lives(record)) return true
    // Our own is not what an earlier process with our pid has left.
    if (record.cgroup !== undefined && record.pid !== process.pid) removeCgroupNow(record.cgroup)
    removeRecord(directory, number)
    return false
  })
  sweepCgroups()
  removeSockets(directory, new Set(living.map(({ record }) => record.pid)))
  const shared = readShared(directory)
  // What was left to the kernel may lead to an upstream on this host, which lo would not let in without.
  if (living.length === 0 && shared !== undefined && kept().length === 0) {
    tearDownRouting(shared)
    removeShared(directory)
  }
  return living
}

function removeSockets(directory: string, living: ReadonlySet<number>): void {
  for (const name of readdirSync(directory))
    if (/^\d+\.sock$/.test(name) && !living.has(Number.parseInt(name, 10)))
      rmSync(`${directory}/${name}`, { force: true })
}

function shareRouting(directory: string, routing: Routing): void {
  const shared = readShared(directory)
  if (shared !== undefined && JSON.stringify(shared.routing) !== JSON.stringify(routing))
    throw new TproxyError('E_CLASH', 'another instance uses another mark, table or priority here', {
      hint: 'give the same to all that run in one network namespace',
    })
  const rules = routingRules()
  checkClashes(routing, rules)
  // Remembered first: whoever finds a half done set-up knows what to undo.
  const changes = shared ?? planRouting(routing)
  if (shared === undefined) writeShared(directory, changes)
  try {
    setUpRouting(changes, rules)
  } catch (error) {
    if (shared === undefined) {
      tearDownRouting(changes)
      removeShared(directory)
    }
    throw error
  }
}

/**
 * Field 22 of /proc/PID/stat; the name in field 2 may hold spaces and parentheses. Undefined for who is no more. Throws `E_SYSTEM`
 * where it cannot be read, such as without a descriptor left: who is taken for dead then loses what is its own.
 */
export function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19]
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    // The second: it ended between open and read.
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw new TproxyError('E_SYSTEM', `look whether process ${pid} lives: ${reason(cause)}`, { cause })
  }
}
