import { accessSync, constants, statSync } from 'node:fs'
import { resolve } from 'node:path'

/** What execvp(3) will say of a command, asked before anything is set up. */
export type Lookup =
  | { readonly found: string }
  | { readonly missing: 'not found' | 'not executable' | 'a directory' }

/** Looks a command up as a shell does: a name with a slash is a path, others are searched in `path`. */
export function findExecutable(command: string, path: string, cwd: string): Lookup {
  if (command.includes('/')) return look(resolve(cwd, command))
  let result: Lookup = { missing: 'not found' }
  for (const directory of path.split(':')) {
    const here = look(resolve(cwd, directory, command))
    if ('found' in here) return here
    if (here.missing === 'not executable') result = here
  }
  return result
}

function look(path: string): Lookup {
  try {
    if (statSync(path).isDirectory()) return { missing: 'a directory' }
    accessSync(path, constants.X_OK)
    return { found: path }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return { missing: code === 'EACCES' ? 'not executable' : 'not found' }
  }
}

/** A program of the system, which sudo and systemd may have left out of PATH. */
export function findTool(name: string): string | undefined {
  const path = `${process.env['PATH'] ?? ''}:/usr/bin:/bin:/usr/sbin:/sbin`
  const result = findExecutable(name, path.replace(/^:/, ''), '/')
  return 'found' in result ? result.found : undefined
}
