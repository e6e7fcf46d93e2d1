import { fileURLToPath } from 'node:url'

/** Where this package and its siblings are, in the sources as where they are installed. */
const ours = fileURLToPath(new URL('../..', import.meta.url))

/** What Node puts before all of a stack where a file cannot be read, or one of the calls. */
const pattern =
  /^(?:\s+at (?:async |.* \()?)?(?<file>(?:file:\/\/)?\/.*?):(?<line>\d+)(?::(?<column>\d+))?\)?$/

/** Longer ones are no places, and would take the pattern long. */
const longest = 1024

export interface SourcePlace {
  readonly path: string
  readonly line: string
  readonly column: string | undefined
}

/** The places that the stack of an error names, but those in Node; of one that has been tampered with, none. */
export function placesOf(error: unknown): SourcePlace[] {
  if (!(error instanceof Error) || typeof error.stack !== 'string') return []
  // A message may be long, and say anything: a peer may have written it.
  const head = `${error.name}: ${error.message}`
  const stack = error.stack.startsWith(head) ? error.stack.slice(head.length) : error.stack
  return stack.split('\n').flatMap((text) => {
    const { file, line, column } = (text.length > longest ? undefined : pattern.exec(text)?.groups) ?? {}
    return file === undefined || line === undefined ? [] : [{ path: pathOf(file), line, column }]
  })
}

/** Where in a plugin's own file an error arose, such as `/srv/office.ts:7`; undefined when its stack does not say. */
export function placeOf(error: unknown): string | undefined {
  const place = placesOf(error).find(({ path }) => !path.startsWith(ours) && !path.includes('/node_modules/'))
  return place && `${place.path}:${place.line}`
}

function pathOf(file: string): string {
  try {
    return file.startsWith('file:') ? fileURLToPath(file) : file
  } catch {
    // Such as one with %2F in it.
    return file
  }
}
