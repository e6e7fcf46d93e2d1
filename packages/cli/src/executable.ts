import { accessSync, closeSync, constants, existsSync, openSync, readSync, statSync } from 'node:fs'
import { resolve } from 'node:path'

/** What execvp(3) will say of a command, asked before anything is set up. */
export type Lookup =
  | { readonly found: string }
  | { readonly missing: 'not found' | 'not executable' | 'a directory' }
  /** It is there; what its first line wants it to be run by is not. */
  | { readonly missing: 'interpreter'; readonly interpreter: string }

/** Looks a command up as a shell does: a name with a slash is a path, others are searched in `path`. */
export function findExecutable(command: string, path: string, cwd: string): Lookup {
  if (command.includes('/')) return look(resolve(cwd, command))
  let result: Lookup = { missing: 'not found' }
  for (const directory of path.split(':')) {
    const here = look(resolve(cwd, directory, command))
    if ('found' in here) return here
    if (here.missing === 'not executable' || here.missing === 'interpreter') result = here
  }
  return result
}

function look(path: string): Lookup {
  try {
    const file = statSync(path)
    if (file.isDirectory()) return { missing: 'a directory' }
    accessSync(path, constants.X_OK)
    // A pipe would have us wait for who writes.
    const interpreter = file.isFile() ? interpreterOf(path) : undefined
    return interpreter === undefined || existsSync(interpreter)
      ? { found: path }
      : { missing: 'interpreter', interpreter }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return { missing: code === 'EACCES' ? 'not executable' : 'not found' }
  }
}

/** What the first line of a script names. */
function interpreterOf(path: string): string | undefined {
  const beginning = Buffer.alloc(256)
  let fd: number | undefined
  try {
    fd = openSync(path, 'r')
    readSync(fd, beginning)
  } catch {
    // Who may execute it need not be able to read it.
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
  return /^#![ \t]*([^\s\0]+)/.exec(beginning.toString())?.[1]
}

/** A program of the system, which sudo and systemd may have left out of PATH. */
export function findTool(name: string): string | undefined {
  const path = `${process.env['PATH'] ?? ''}:/usr/bin:/bin:/usr/sbin:/sbin`
  const result = findExecutable(name, path.replace(/^:/, ''), '/')
  return 'found' in result ? result.found : undefined
}
