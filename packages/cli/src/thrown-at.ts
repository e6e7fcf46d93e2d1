import { fileURLToPath } from 'node:url'
import { reason } from '@tproxy/core'

/** A line of a stack: what Node puts before all of it where a file cannot be read, or one of the calls. */
const place = /^(?:\s+at (?:async |.* \()?)?((?:file:\/\/)?\/.*?)(:\d+(?::\d+)?)\)?$/

/** {@link reason}, and where it was thrown, or called from: the first place that is not in Node. */
export function reasonAndPlace(error: unknown): string {
  const lines = error instanceof Error ? (error.stack ?? '').split('\n') : []
  const [, file, position] = lines.map((line) => place.exec(line)).find((match) => match !== null) ?? []
  if (file === undefined) return reason(error)
  return `${reason(error)} (at ${file.startsWith('file:') ? fileURLToPath(file) : file}${position})`
}
