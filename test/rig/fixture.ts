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

/** The same of a BPF program, `NAME.bpf.c`. */
export function kernelFixture(name: string): Promise<string> {
  const source = `${name}.bpf`
  const path = made.get(source) ?? make(source)
  made.set(source, path)
  return path
}

async function make(name: string): Promise<string> {
  const binary = binaries + name
  const inputs = [`${name}.c`, ...readdirSync(sources).filter((file) => file.endsWith('.h'))]
  const newest = Math.max(...inputs.map((file) => statSync(sources + file).mtimeMs))
  if ((statSync(binary, { throwIfNoEntry: false })?.mtimeMs ?? 0) > newest) return binary
  mkdirSync(binaries, { recursive: true })
  // Under another name first: a program that runs cannot be written to.
  const fresh = `${binary}.${process.pid}`
  const common = ['-O2', '-Wall', '-Wextra', '-Werror', '-o', fresh, `${sources}${name}.c`]
  if (!name.endsWith('.bpf')) await run('gcc', ['-static', '-D_GNU_SOURCE', ...common])
  else {
    const include = `-I/usr/include/${process.arch === 'x64' ? 'x86_64' : 'aarch64'}-linux-gnu`
    await run('clang', ['-g', '--target=bpf', include, '-c', ...common, '-Wno-unused-parameter'])
    await run('llvm-strip', ['-g', fresh])
  }
  renameSync(fresh, binary)
  return binary
}
