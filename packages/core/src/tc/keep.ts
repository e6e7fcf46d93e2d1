import { lstatSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { keptLayout, networkNamespaceCookie, unpin } from '@tproxy/bpf'
import { endpointOf } from '../endpoint.ts'
import { reason, TproxyError } from '../errors.ts'
import { loadSplicing } from './programs.ts'
import { readSystemFile } from './system.ts'

/** What it takes the program of a severed connection to answer, by which the upstream hears of it. */
const severMs = 200

/** What an instance of this network namespace left, or leaves, to the kernel. */
export interface Kept {
  /** Of the instance. */
  readonly number: number
  /** Where its programs and maps are pinned. */
  readonly directory: string
  /** Whether our programs understand those maps. */
  readonly ours: boolean
}

function bpfFileSystem(): string | undefined {
  const mounted = (readSystemFile('/proc/self/mounts') ?? '').split('\n').map((line) => line.split(' '))
  const points = mounted.filter(([, , type]) => type === 'bpf').map(([, point]) => point)
  return points.includes('/sys/fs/bpf') ? '/sys/fs/bpf' : points.at(-1)
}

/** Where one is mounted. Throws `E_SYSTEM` where none is. */
export function requireBpfFileSystem(): string {
  const point = bpfFileSystem()
  if (point === undefined)
    throw new TproxyError('E_SYSTEM', 'keep spliced connections: no bpf file system is mounted', {
      hint: 'mount -t bpf bpf /sys/fs/bpf',
    })
  return point
}

/** Our directory there for this network namespace, whose cookie no other has had since boot. */
const below = (point: string) => `${point}/tproxy/${networkNamespaceCookie()}`

/** Who mounts a bpf file system may let all users make directories there. */
const isOurs = (directory: string) =>
  lstatSync(directory, { throwIfNoEntry: false })?.uid === process.geteuid?.()

/** Makes the directory of an instance. Throws `E_SYSTEM` where there is no bpf file system, or none for us. */
export function keepIn(number: number): string {
  const directory = `${below(requireBpfFileSystem())}/${number}-${keptLayout}`
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const [first, second] = [dirname(dirname(directory)), dirname(directory)]
    for (const path of [first, second, directory])
      if (!isOurs(path)) throw new Error(`${path} is somebody else's`)
  } catch (cause) {
    throw new TproxyError('E_SYSTEM', `keep spliced connections in ${directory}: ${reason(cause)}`, {
      hint: 'run as root, or mount a bpf file system that is yours',
      cause,
    })
  }
  return directory
}

/** What instances of this network namespace, also living ones, have pinned. */
export function kept(): Kept[] {
  const point = bpfFileSystem()
  const root = point === undefined ? undefined : below(point)
  if (root === undefined || !isOurs(dirname(root)) || !isOurs(root)) return []
  return readdirSync(root).flatMap((name) => {
    const [, number, layout] = /^(\d+)-([0-9a-f]+)$/.exec(name) ?? []
    if (number === undefined || !isOurs(`${root}/${name}`)) return []
    return [{ number: Number(number), directory: `${root}/${name}`, ours: layout === keptLayout }]
  })
}

/** Resets the connections that were left to the kernel, and removes what carries them. Returns how many there were. */
export async function endKept({ directory, ours }: Kept): Promise<number> {
  let count = 0
  // What we do not understand ends with its next packet, which nobody translates any more.
  if (ours) {
    using splicing = loadSplicing({ directory })
    for (const { pair, serial, client } of splicing.pairs()) {
      splicing.sever(pair, serial, endpointOf(client.source, 0).family)
      count++
    }
    if (count > 0) await sleep(severMs)
  }
  forgetKept(directory)
  return count
}

/** Removes what is pinned. */
export function forgetKept(directory: string): void {
  unpin(directory)
  for (const parent of [dirname(directory), dirname(dirname(directory))])
    try {
      rmdirSync(parent)
    } catch {
      // Another instance, or network namespace, has something there.
    }
}
