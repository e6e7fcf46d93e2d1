import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { isAbsolute } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { reason, TproxyError } from '../errors.ts'
import { readSystemFile } from './system.ts'

/** CGROUP2_SUPER_MAGIC of linux/magic.h: the file system that every cgroup of version 2 is in. */
const cgroup2 = 0x63677270

/** Where cgroup v2 is mounted; undefined when it is not. */
function findCgroupRoot(): string | undefined {
  const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n')
  const mount = mounts.map((line) => line.split(' ')).find(([, , type]) => type === 'cgroup2')
  // The kernel writes spaces in octal.
  return mount?.[1]?.replaceAll(/\\(\d{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  )
}

/** Where cgroup v2 is mounted. Throws `E_KERNEL` when it is not. */
export function cgroupRoot(): string {
  const root = findCgroupRoot()
  if (root === undefined)
    throw new TproxyError('E_KERNEL', 'cgroup v2 is not mounted', {
      hint: 'mount -t cgroup2 none /sys/fs/cgroup/unified',
    })
  return root
}

function isCgroup(path: string): boolean {
  try {
    return isAbsolute(path) && statSync(path).isDirectory() && statfsSync(path).type === cgroup2
  } catch {
    // Nothing is there, or nothing that we may see.
    return false
  }
}

/** Throws `E_OPTION` for what is not the directory of a cgroup. */
export function requireCgroup(path: string): void {
  if (isCgroup(path)) return
  throw new TproxyError('E_OPTION', `cgroup is '${path}'`, {
    hint: 'the absolute path of a directory of cgroup v2, as makeCgroup() makes one',
  })
}

/**
 * The path below the mount that people mean: as it is, or where the systemd unit of that name is. undefined when there is
 * no such cgroup now. Of several with the name of a unit, the one that is nearest to the root is meant: a container has its own.
 * None is that of a user, who may give a unit any name.
 */
export function findCgroup(path: string, root: string | undefined = findCgroupRoot()): string | undefined {
  if (root === undefined) return undefined
  if (path.startsWith('/')) return existsSync(`${root}${path}`) ? path : undefined
  if (path.includes('/')) return findCgroup(`/${path}`, root)
  for (let level = ['']; level.length > 0; ) {
    const below = level.flatMap((each) => directories(`${root}${each}`).map((name) => `${each}/${name}`))
    const found = below.find((each) => each.endsWith(`/${path}`))
    if (found !== undefined) return found
    level = below.filter((each) => isSystems(`${root}${each}`))
  }
  return undefined
}

/** Whether only the system makes cgroups in one. */
const isSystems = (path: string) => statSync(path, { throwIfNoEntry: false })?.uid === 0

/** The paths of all below the mount, its own, which is empty, first. */
export function allCgroups(path: string = ''): string[] {
  const below = directories(`${cgroupRoot()}${path}`)
  return [path, ...below.flatMap((name) => allCgroups(`${path}/${name}`))]
}

/** Ids of a cgroup and those above it, the highest first; undefined when it is gone. */
export function cgroupIds(path: string): bigint[] | undefined {
  const root = findCgroupRoot()
  if (root === undefined) return undefined
  const parts = path.split('/').filter((part) => part !== '')
  const ids: bigint[] = []
  for (let depth = 0; depth <= parts.length; depth++) {
    const directory = [root, ...parts.slice(0, depth)].join('/')
    const found = statSync(directory, { bigint: true, throwIfNoEntry: false })
    if (found === undefined) return undefined
    ids.push(found.ino)
  }
  return ids
}

/** A cgroup of our own: what is put there, with all that it starts, can be intercepted, and ended as a whole. */
export interface Cgroup extends AsyncDisposable {
  /** Absolute path of the directory. */
  readonly path: string
  /** Kills all that is in it (`cgroup.kill`, since 5.14). */
  kill(): void
  /** Kills all that is in it, and removes it. */
  close(): Promise<void>
}

let made = 0

/** Absolute path of the cgroup that this process is in. Throws `E_KERNEL` without cgroup v2. */
export function ownCgroup(): string {
  const own = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/'
  return `${cgroupRoot()}${own === '/' ? '' : own}`
}

/** Makes a cgroup below the one this process is in, so that its limits hold there too. */
export function makeCgroup(): Cgroup {
  const path = `${ownCgroup()}/tproxy-${process.pid}${made++ === 0 ? '' : `-${made}`}`
  try {
    // What a process with our pid left behind is empty, or it would still be there.
    removeCgroup(path)
    mkdirSync(path)
  } catch (cause) {
    throw new TproxyError('E_PRIVILEGE', `make cgroup ${path}: ${reason(cause)}`, {
      hint: 'run as root, with cgroup v2 mounted writable',
      cause,
    })
  }
  const close = async () => {
    for (let attempt = 0; attempt < 200 && !removeCgroup(path); attempt++) await sleep(10)
  }
  return { path, kill: () => killCgroup(path), close, [Symbol.asyncDispose]: close }
}

function killCgroup(path: string): void {
  try {
    writeFileSync(`${path}/cgroup.kill`, '1')
  } catch {
    // It is gone.
  }
}

/** Kills what is in a cgroup of ours and removes it; false while processes are still about to end. Follows no links. */
function removeCgroup(path: string): boolean {
  if (!/\/tproxy-\d+(-\d+)?$/.test(path) || !isCgroup(path)) return true
  try {
    if (realpathSync(path) !== path) return true
    killCgroup(path)
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isDirectory()) removeTree(`${path}/${entry.name}`)
    rmdirSync(path)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT'
  }
}

/**
 * Removes cgroups that a process made and did not live to register: they are empty, for nothing enters before that. Those
 * of living processes stay, and one in use cannot be removed. Returns how many there were.
 */
export function sweepCgroups(path: string | undefined = findCgroupRoot()): number {
  if (path === undefined) return 0
  let removed = 0
  for (const name of directories(path)) {
    const maker = /^tproxy-(\d+)(-\d+)?$/.exec(name)?.[1]
    if (maker === undefined) removed += sweepCgroups(`${path}/${name}`)
    else if (!existsSync(`/proc/${maker}`))
      try {
        rmdirSync(`${path}/${name}`)
        removed++
      } catch {
        // In use after all: by a process we cannot see.
      }
  }
  return removed
}

/** Names of the cgroups in one; none when it is gone. */
function directories(path: string): string[] {
  try {
    const entries = readdirSync(path, { withFileTypes: true })
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  } catch {
    return []
  }
}

function removeTree(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeTree(`${path}/${entry.name}`)
  rmdirSync(path)
}

/** The same, waiting for the processes to end: some milliseconds, a second at most. */
export function removeCgroupNow(path: string): void {
  const clock = new Int32Array(new SharedArrayBuffer(4))
  for (let attempt = 0; attempt < 200 && !removeCgroup(path); attempt++) Atomics.wait(clock, 0, 0, 5)
}

/** Of the time it takes to look at all cgroups, so much passes before that is done again, and a second at least. */
const restPerWalk = 10

/** Finds the path of a cgroup by its id, which is the inode of its directory. */
export class CgroupPaths {
  readonly #root: string
  #paths = new Map<bigint, string>()
  #walkAgainAt = 0

  /** Without cgroup v2 no id has a path. */
  constructor(root: string = findCgroupRoot() ?? '/nonexistent') {
    this.#root = root
  }

  /**
   * Path below the root of the hierarchy; `hint` is a pid that was in it. Undefined for one that is gone; and where the process
   * is, now and then also for one that is there: to look at all of them takes 20 µs each, and who asks waits.
   */
  find(id: bigint, pid: number): string | undefined {
    const known = this.#paths.get(id)
    if (known !== undefined) return known
    const hinted = /^0::(.*)$/m.exec(readSystemFile(`/proc/${pid}/cgroup`) ?? '')?.[1]
    if (hinted === undefined || this.#idOf(hinted) !== id) return this.#walk().get(id)
    // Bounded: cgroups come and go, and their ids are not used again.
    if (this.#paths.size > 4096) this.#paths = new Map()
    this.#paths.set(id, hinted)
    return hinted
  }

  /** Undefined for what is not there, or has a path that is too long to be said: its owner may make one. */
  #idOf(path: string): bigint | undefined {
    try {
      return statSync(`${this.#root}${path}`, { bigint: true }).ino
    } catch {
      return undefined
    }
  }

  /** All that are there now, or were a while ago. */
  #walk(): ReadonlyMap<bigint, string> {
    const began = performance.now()
    if (began < this.#walkAgainAt) return this.#paths
    this.#paths = new Map()
    this.#add('')
    const ended = performance.now()
    this.#walkAgainAt = ended + Math.max(1_000, (ended - began) * restPerWalk)
    return this.#paths
  }

  #add(path: string): void {
    const id = this.#idOf(path)
    if (id === undefined) return
    this.#paths.set(id, path || '/')
    for (const name of directories(`${this.#root}${path}`)) this.#add(`${path}/${name}`)
  }
}
