import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { tryLock } from '@tproxy/bpf'
import { reason, TproxyError } from '../errors.ts'

/** Records of what runs and what was changed, for those who come after a crash; a file system that a reboot empties. */
export const root = '/run/tproxy'
const lockWaitMs = 5_000

/** Those of this network namespace. */
export const recordsDirectory = (): string => `${root}/${statSync('/proc/self/ns/net').ino}`

/** The same; throws `E_SYSTEM` when nothing can be kept there. Changes nothing. */
export function writableRecordsDirectory(): string {
  const directory = recordsDirectory()
  try {
    // The others are made in it.
    const there = [directory, root, dirname(root)].find((path) => existsSync(path)) ?? '/'
    accessSync(there, constants.W_OK | constants.X_OK)
    return directory
  } catch (cause) {
    throw unwritable(directory, cause)
  }
}

/** Runs `work` while no other process is at the records of this network namespace, and tidies up the directory. */
export async function locked<T>(work: (directory: string) => T | Promise<T>): Promise<T> {
  const directory = recordsDirectory()
  const lock = await takeLock(directory)
  try {
    return await work(directory)
  } finally {
    try {
      tidyUp(directory)
    } finally {
      closeSync(lock)
    }
  }
}

function tidyUp(directory: string): void {
  if (readdirSync(directory).some((name) => name !== 'lock')) return
  rmSync(`${directory}/lock`)
  rmdirSync(directory)
  try {
    rmdirSync(root)
  } catch {
    // Another network namespace has records.
  }
}

async function takeLock(directory: string): Promise<number> {
  const deadline = performance.now() + lockWaitMs
  for (;;) {
    const fd = openLock(directory)
    if (fd !== undefined && tryLock(fd)) {
      // Its last owner may have removed the file between our open and our lock.
      const inode = fstatSync(fd).ino
      if (statSync(`${directory}/lock`, { throwIfNoEntry: false })?.ino === inode) return fd
    }
    if (fd !== undefined) closeSync(fd)
    const late = performance.now() > deadline
    if (late && fd === undefined)
      throw new TproxyError('E_SYSTEM', `make ${directory}`, { hint: `${dirname(root)} must be there` })
    if (late)
      throw new TproxyError(
        'E_BUSY',
        `lock ${directory}/lock: another process holds it for ${lockWaitMs} ms`,
        {
          hint: `see who: fuser ${directory}/lock`,
        },
      )
    await sleep(5)
  }
}

function openLock(directory: string): number | undefined {
  try {
    // One by one: mkdir -p of Node says that a directory is missing where the file system is read-only.
    for (const path of [root, directory]) make(path)
    return openSync(`${directory}/lock`, 'a', 0o600)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    // Removed between the two calls.
    if (code === 'ENOENT') return undefined
    throw unwritable(directory, cause)
  }
}

function make(directory: string): void {
  try {
    mkdirSync(directory, { mode: 0o700 })
  } catch (error) {
    // Somebody else was faster.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

function unwritable(directory: string, cause: unknown): TproxyError {
  const { code } = cause as NodeJS.ErrnoException
  return new TproxyError('E_SYSTEM', `write to ${directory}: ${reason(cause)}`, {
    hint: code === 'EACCES' || code === 'EPERM' ? 'run as root' : `${root} must be writable`,
    cause,
  })
}
