// Tables for people, and bench/rules/results.json for what compares runs.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { machine } from '../compare/machine.ts'

const here = new URL('./', import.meta.url).pathname
const results = `${here}results.json`
const objects = `${here}dist/`

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const [above = Number.NaN, below = above] = [sorted[middle], sorted[middle - 1]]
  return sorted.length % 2 === 1 ? above : (below + above) / 2
}

export const thousands = (value: number): string =>
  value.toLocaleString('en', { maximumFractionDigits: 0 }).replaceAll(',', ' ')

/** Prints rows under the names of their fields, numbers to the right. */
export function printTable(title: string, rows: readonly Record<string, string | number>[]): void {
  const names = Object.keys(rows[0] ?? {})
  const cells = rows.map((row) =>
    names.map((name) => (typeof row[name] === 'number' ? thousands(row[name]) : `${row[name] ?? ''}`)),
  )
  const widths = names.map((name, at) => Math.max(name.length, ...cells.map((cell) => cell[at]?.length ?? 0)))
  const line = (words: readonly string[]) =>
    words.map((word, at) => word.padStart(widths[at] ?? 0)).join('  ')
  console.log(`\n${title}\n\n${line(names)}`)
  for (const cell of cells) console.log(line(cell))
}

/** Notes one part of the results, with the machine they are of. */
export function writeResults(part: string, value: unknown): void {
  const before = existsSync(results)
    ? (JSON.parse(readFileSync(results, 'utf8')) as Record<string, unknown>)
    : {}
  const all = { ...before, [part]: { machine: machine(), results: value } }
  // One line for each result: a change of figures is then a readable one.
  const text = JSON.stringify(all, undefined, 1).replace(
    /\{\n\s+("[^{}[\]]*)\n\s+\}/g,
    (_, inner: string) => {
      return `{ ${inner.replace(/\n\s+/g, ' ')} }`
    },
  )
  writeFileSync(results, `${text}\n`)
}

/** The path of a compiled C program of this directory; `.bpf.c` are for the kernel. */
export function compiled(source: string): string {
  mkdirSync(objects, { recursive: true })
  const output = objects + source.replace(/\.c$/, source.endsWith('.bpf.c') ? '.o' : '')
  const headers = `${here}../../packages/bpf/bpf/`
  const fixtures = `${here}../../test/fixtures/`
  const files = (directory: string) =>
    readdirSync(directory)
      .filter((name) => name.endsWith('.h'))
      .map((name) => directory + name)
  const inputs = [here + source, ...files(headers), ...files(fixtures)]
  const newest = Math.max(...inputs.map((file) => statSync(file).mtimeMs))
  if ((statSync(output, { throwIfNoEntry: false })?.mtimeMs ?? 0) > newest) return output
  const flags = ['-O2', '-Wall', '-Wextra', '-Werror', '-o', output, here + source]
  if (!source.endsWith('.bpf.c')) {
    execFileSync('gcc', ['-static', '-D_GNU_SOURCE', `-I${fixtures}`, ...flags])
    return output
  }
  const [target, triple] = { x64: ['x86', 'x86_64'], arm64: ['arm64', 'aarch64'] }[
    process.arch as 'x64' | 'arm64'
  ]
  const include = [`-I/usr/include/${triple}-linux-gnu`, `-I${headers}`]
  execFileSync('clang', [
    ...['-g', '-mcpu=v3', '--target=bpf', `-D__TARGET_ARCH_${target}`, '-c'],
    ...[...include, ...flags, '-Wno-unused-parameter'],
  ])
  execFileSync('llvm-strip', ['-g', output])
  return output
}
