import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'

const here = new URL('./', import.meta.url).pathname

/** The path of a C program of this directory, compiled anew. Linked dynamically, for proxychains4 needs that. */
export function compiled(name: string): string {
  mkdirSync(`${here}dist`, { recursive: true })
  const output = `${here}dist/${name}`
  const flags = ['-O2', '-Wall', '-Wextra', '-Werror', '-D_GNU_SOURCE', '-pthread']
  execFileSync('gcc', [...flags, '-o', output, `${here}${name}.c`])
  return output
}
