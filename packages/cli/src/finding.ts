import { reason, TproxyError } from '@tproxy/core'

/** Something about a file that is worth saying. */
export interface Finding {
  /** An `error` has the file refused, a `warning` is of no use or not as meant. */
  readonly severity: 'error' | 'warning'
  /** From 1; undefined where it is about the whole file. */
  readonly place: Place | undefined
  readonly message: string
  readonly remedy: string | undefined
}

export interface Place {
  readonly line: number
  readonly column: number
}

/** What was thrown, with its hint apart. */
export function explain(error: unknown): { message: string; remedy: string | undefined } {
  const remedy = error instanceof TproxyError ? error.hint : undefined
  const text = reason(error)
  return { message: remedy === undefined ? text : text.replace(` (${remedy})`, ''), remedy }
}

/** The same for programs; the code is one of ErrorCode, or of Node. */
export interface Failure {
  readonly code?: string
  readonly message: string
  readonly hint?: string
}

export function failure(error: unknown): Failure {
  const { message, remedy } = explain(error)
  const { code } = error as NodeJS.ErrnoException
  return { ...(code !== undefined && { code }), message, ...(remedy !== undefined && { hint: remedy }) }
}

/** `file:line:column: message (remedy)`. */
export function locate(file: string, { place, message, remedy }: Omit<Finding, 'severity'>): string {
  const where = place === undefined ? file : `${file}:${place.line}:${place.column}`
  return `${where}: ${message}${remedy === undefined ? '' : ` (${remedy})`}`
}

/** Finds it where it is not part of a longer one. */
export const wholeWord = (word: string): RegExp => new RegExp(`(?<![\\w.-])${RegExp.escape(word)}(?![\\w.-])`)
