import { execFile } from 'node:child_process'
import { mkdirSync, readdirSync, renameSync, statSync } from 'node:fs'
import { promisify } from 'node:util'

const run = promisify(execFile)
const sources = new URL('../fixtures/', import.meta.url).pathname
const binaries = `${sources}bin/`

const made = new Map<string, Promise<string>>()

/**
 * The path of a C program of test/fixtures, compiled when it is missing or older than a source. Statically linked, so that
 * nothing can be preloaded into it, as with a program written in Go.
 */
export function fixture(name: string): Promise<string> {
  const path = made.get(name) ?? make(name)
  made.set(name, path)
  return path
}

async function make(name: string): Promise<string> {
  const binary = binaries + name
  const inputs = [`${name}.c`, ...readdirSync(sources).filter((file) => file.endsWith('.h'))]
  const newest = Math.max(...inputs.map((file) => statSync(sources + file).mtimeMs))
  if ((statSync(binary, { throwIfNoEntry: false })?.mtimeMs ?? 0) > newest) return binary
  mkdirSync(binaries, { recursive: true })
  // Under another name first: a program that runs cannot be written to.
  const flags = ['-static', '-O2', '-Wall', '-Wextra', '-Werror', '-D_GNU_SOURCE']
  const fresh = `${binary}.${process.pid}`
  await run('gcc', [...flags, '-o', fresh, `${sources}${name}.c`])
  renameSync(fresh, binary)
  return binary
}
