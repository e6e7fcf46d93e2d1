import { fileURLToPath } from 'node:url'

/** Where this package and its siblings are, in the sources as where they are installed. */
const ours = fileURLToPath(new URL('../..', import.meta.url))

/** Where in a plugin's own file an error arose, such as `/srv/office.ts:7`; undefined when its stack does not say. */
export function placeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || typeof error.stack !== 'string') return undefined
  for (const line of error.stack.split('\n')) {
    const [, file, number] = /^ {4}at (?:.* \()?((?:file:\/\/)?\/.*):(\d+):\d+\)?$/.exec(line) ?? []
    if (file === undefined) continue
    const path = file.startsWith('file:') ? fileURLToPath(file) : file
    if (!path.startsWith(ours) && !path.includes('/node_modules/')) return `${path}:${number}`
  }
  return undefined
}
