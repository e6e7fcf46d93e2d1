import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
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

// The directory may be a service user's, and who cleans up after that is root: what is read is not to be trusted. By hand, for
// to load zod takes 70 ms of each start.
export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null
export const isText = (value: unknown): value is string => typeof value === 'string'

function isInstanceRecord(value: unknown): value is InstanceRecord {
  if (!isObject(value)) return false
  const { pid, startTime, interfaces, keeps, cgroup } = value
  const ofText = Array.isArray(interfaces) && interfaces.every(isText)
  const mayHaveCgroup = cgroup === undefined || isText(cgroup)
  return Number.isInteger(pid) && isText(startTime) && ofText && typeof keeps === 'boolean' && mayHaveCgroup
}

function isRoutingChanges(value: unknown): value is RoutingChanges {
  if (!isObject(value) || !isObject(value['routing']) || !isObject(value['settings'])) return false
  const { mark, table, priority } = value['routing']
  const areValid = Object.entries(value['settings']).every(
    ([name, before]) => sysctls.some((known) => known === name) && isText(before) && /^\d$/.test(before),
  )
  return [mark, table, priority].every(Number.isInteger) && areValid
}

/** All of a directory, of the dead and the living; one that cannot be read is of somebody dead. */
export function records(directory: string): { number: number; record: InstanceRecord }[] {
  return readdirSync(directory)
    .filter((name) => /^\d+\.json$/.test(name))
    .map((name) => ({
      number: Number.parseInt(name, 10),
      record: readJson(`${directory}/${name}`, isInstanceRecord) ?? {
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
  return readJson(`${directory}/shared.json`, isRoutingChanges)
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
export function readJson<T>(path: string, isValid: (value: unknown) => value is T): T | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    return isValid(value) ? value : undefined
  } catch {
    return undefined
  }
}
