import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { readFileSync, readlinkSync } from 'node:fs'
import { TproxyError } from '@tproxy/core'
import { type Ending, exitCode } from './ending.ts'
import type { Invoker } from './invoker.ts'

/**
 * Enters the cgroup before anything else runs, so that no packet of the command escapes, and while we may still write
 * there. $0: the cgroup, $1: the soft limit of open files, or nothing, $2: signals to be ignored; the rest is executed.
 */
const script = `{ echo 0 >"$0/cgroup.procs"; } 2>/dev/null ||
  { echo "tproxy-run: the command cannot enter $0 (is this cgroup delegated to you?)" >&2; exit ${exitCode.failed}; }
[ -z "$1" ] || ulimit -Sn "$1" 2>/dev/null
[ -z "$2" ] || trap '' $2
shift 2
exec "$@"`

/** A command that runs. */
export interface Running {
  readonly ended: Promise<Ending>
  kill(signal: NodeJS.Signals): void
}

/** Starts a command inside a cgroup as somebody, with our terminal, standard streams and working directory. */
export function launch(
  command: readonly [string, ...string[]],
  {
    cgroup,
    setpriv,
    as,
    ignored,
  }: { cgroup: string; setpriv: string; as: Invoker; ignored: readonly NodeJS.Signals[] },
): Running {
  const limit = callersFileLimit() ?? ''
  const traps = ignored.map((signal) => signal.slice('SIG'.length)).join(' ')
  const child = spawn(
    '/bin/sh',
    ['-c', script, cgroup, limit, traps, setpriv, ...as.setpriv, '--', ...command],
    {
      stdio: descriptors(command),
      env: as.env,
    },
  )
  return { ended: ending(child), kill: (signal) => kill(child, signal) }
}

function ending(child: ChildProcess): Promise<Ending> {
  const { promise, resolve, reject } = Promise.withResolvers<Ending>()
  child.once('error', (cause) =>
    reject(new TproxyError('E_SYSTEM', `start the command: ${cause.message}`, { cause })),
  )
  child.once('exit', (code, signal) =>
    resolve(signal === null ? { code: code ?? exitCode.failed } : { signal }),
  )
  return promise
}

function kill(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  try {
    process.kill(child.pid, signal)
  } catch {
    // It has just ended, or became somebody we may not signal.
  }
}

/** Node raises its own soft limit to the hard one; select(2) in the command may not be up to that. */
function callersFileLimit(): string | undefined {
  try {
    const limits = readFileSync(`/proc/${process.ppid}/limits`, 'utf8')
    return /^Max open files\s+(\d+|unlimited)/m.exec(limits)?.[1]
  } catch {
    return undefined
  }
}

/**
 * Standard streams, and what a shell's process substitution names in an argument, as in `diff <(a) <(b)`. That our
 * caller has the same open under this number shows that it is not one of ours.
 */
function descriptors(command: readonly string[]): StdioOptions {
  const stdio: ('inherit' | 'ignore' | number)[] = ['inherit', 'inherit', 'inherit']
  for (const argument of command) {
    const fd = Number(/^\/(?:dev|proc\/self)\/fd\/(\d{1,3})$/.exec(argument)?.[1])
    if (!(fd > 2) || !isOfCaller(fd)) continue
    while (stdio.length < fd) stdio.push('ignore')
    stdio[fd] = fd
  }
  return stdio
}

function isOfCaller(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === readlinkSync(`/proc/${process.ppid}/fd/${fd}`)
  } catch {
    return false
  }
}
