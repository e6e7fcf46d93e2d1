import { readFileSync } from 'node:fs'
import { explain } from '../finding.ts'

/** One line of the checklist. `remedy` is what to do about it, exactly. */
export interface Check {
  readonly name: string
  readonly status: 'ok' | 'warn' | 'missing'
  readonly detail: string
  readonly remedy?: string
}

export const ok = (name: string, detail: string): Check => ({ name, status: 'ok', detail })

export const warn = (name: string, detail: string, remedy: string): Check => ({
  name,
  status: 'warn',
  detail,
  remedy,
})

export const missing = (name: string, detail: string, remedy: string): Check => ({
  name,
  status: 'missing',
  detail,
  remedy,
})

/** `work` says what is fine; what it throws is missing, and its hint the remedy. */
export function attempt(name: string, remedy: string, work: () => string): Check {
  try {
    return ok(name, work())
  } catch (error) {
    const { message, remedy: own = remedy } = explain(error)
    return missing(name, message, own)
  }
}

/** A file of /proc or /sys without its newline; undefined when it is not there. */
export function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return undefined
  }
}
