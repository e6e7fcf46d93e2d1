import { readFileSync } from 'node:fs'
import { constants } from 'node:os'

/** What people and service managers send to a process to end it or to tell it something. */
export const forwarded: readonly NodeJS.Signals[] = [
  'SIGINT',
  'SIGQUIT',
  'SIGTERM',
  'SIGHUP',
  'SIGUSR1',
  'SIGUSR2',
  'SIGALRM',
]

const ignoresVariable = 'TPROXY_RUN_IGNORES'

/**
 * Those of them that our caller ignored, as nohup(1) and scripts' background jobs do: as the script tproxy-run tells, for Node
 * has forgotten. They are ignored from now on. Nobody else finds the variable.
 */
export function ignoreAsCaller(): NodeJS.Signals[] {
  const mask = BigInt(`0x${process.env[ignoresVariable] || 0}`)
  delete process.env[ignoresVariable]
  const ignored = forwarded.filter((signal) => (mask >> BigInt(constants.signals[signal] - 1)) & 1n)
  for (const signal of ignored) process.on(signal, () => {})
  return ignored
}

/** Calls `handler` for signals until disposed of. */
export function listen(
  signals: readonly NodeJS.Signals[],
  handler: (signal: NodeJS.Signals) => void,
): Disposable {
  for (const signal of signals) process.on(signal, handler)
  return {
    [Symbol.dispose]: () => {
      for (const signal of signals) process.off(signal, handler)
    },
  }
}

/**
 * Whether a signal reaches the command without us: ^C and ^\\ go to the terminal's whole foreground group, and the command
 * would get them twice.
 */
export function isFromTerminal(signal: NodeJS.Signals): boolean {
  if (signal !== 'SIGINT' && signal !== 'SIGQUIT') return false
  const stat = readFileSync('/proc/self/stat', 'utf8')
  // Fields 5, 7 and 8 of proc_pid_stat(5), after the name in parentheses.
  const [, , group, , terminal, foreground] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return terminal !== '0' && group === foreground
}

/** Whether we have a controlling terminal; the kernel takes it away before it says by SIGHUP that the terminal is gone. */
export function hasTerminal(): boolean {
  const stat = readFileSync('/proc/self/stat', 'utf8')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[4] !== '0'
}

/** Our core file would hold upstream passwords, and pass for the command's. */
const dumpingCore: readonly string[] = [
  'SIGQUIT',
  'SIGILL',
  'SIGTRAP',
  'SIGABRT',
  'SIGBUS',
  'SIGFPE',
  'SIGSEGV',
  'SIGXCPU',
  'SIGXFSZ',
  'SIGSYS',
]

/** Ends this process as `signal` ended the command, so that our caller sees what it would have seen. */
export function dieBy(signal: NodeJS.Signals): never {
  if (!dumpingCore.includes(signal)) {
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
  }
  // Also where Node ignores it, as SIGPIPE: what shells make of it.
  process.exit(128 + constants.signals[signal])
}
