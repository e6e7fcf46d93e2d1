import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { z } from 'zod'
import type { Interface } from './interfaces.ts'
import { type RoutingChanges, sysctls } from './routing.ts'

/** What an instance leaves on record. */
export interface InstanceRecord {
  readonly pid: number
  /** In clock ticks since boot: with the pid, what tells a process from a later one. */
  readonly startTime: string
  /** Names of the interfaces whose whole traffic it intercepts; empty for a scope of one cgroup. */
  readonly interfaces: readonly Interface['name'][]
  /** Whether what is pinned under its number is its own. */
  readonly keeps: boolean
  /** A cgroup it made. */
  readonly cgroup?: string | undefined
}

// The directory may be a service user's, and who cleans up after that is root: what is read is not to be trusted.
const instanceRecord = z.object({
  pid: z.number().int(),
  startTime: z.string(),
  interfaces: z.array(z.string()),
  keeps: z.boolean(),
  cgroup: z.string().optional(),
})
const routingChanges = z.object({
  routing: z.object({ mark: z.number().int(), table: z.number().int(), priority: z.number().int() }),
  settings: z.partialRecord(z.enum(sysctls), z.string().regex(/^\d$/)),
})

/** All of a directory, of the dead and the living; one that cannot be read is of somebody dead. */
export function records(directory: string): { number: number; record: InstanceRecord }[] {
  return readdirSync(directory)
    .filter((name) => /^\d+\.json$/.test(name))
    .map((name) => ({
      number: Number.parseInt(name, 10),
      record: read(`${directory}/${name}`, instanceRecord) ?? {
        pid: 0,
        startTime: '',
        interfaces: [],
        keeps: false,
      },
    }))
}

export function writeRecord(directory: string, number: number, record: InstanceRecord): void {
  writeWhole(`${directory}/${number}.json`, record)
}

export function removeRecord(directory: string, number: number): void {
  rmSync(`${directory}/${number}.json`, { force: true })
}

/** What was changed for all instances; undefined where nothing is. */
export function readShared(directory: string): RoutingChanges | undefined {
  return read(`${directory}/shared.json`, routingChanges)
}

export function writeShared(directory: string, changes: RoutingChanges): void {
  writeWhole(`${directory}/shared.json`, changes)
}

export function removeShared(directory: string): void {
  rmSync(`${directory}/shared.json`, { force: true })
}

/** Replaces a file by one that has all of it, or stays as it is: whoever is killed meanwhile leaves no half, and no link is followed. */
export function writeWhole(path: string, value: unknown): void {
  const part = `${path}.part`
  rmSync(part, { force: true })
  writeFileSync(part, JSON.stringify(value), { flag: 'wx', mode: 0o600 })
  renameSync(part, path)
}

/** Undefined for what is missing, or is not what it should be. */
function read<T>(path: string, kind: z.ZodType<T>): T | undefined {
  try {
    return kind.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    return undefined
  }
}
