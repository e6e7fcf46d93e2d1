import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { reason, TproxyError } from '../errors.ts'

/** Our environment, in which the tools of the system are found too: sudo and systemd may leave their directories out. */
export function withTools(): NodeJS.ProcessEnv {
  // An empty part would be the working directory (environ(7)).
  const parts = (process.env['PATH'] ?? '').split(':').filter((part) => part !== '')
  return { ...process.env, PATH: [...parts, '/usr/bin', '/bin', '/usr/sbin', '/sbin'].join(':') }
}

/** Runs iproute2's `ip`. Throws `E_SYSTEM` with what it said. `input` is for `-batch -`. */
export function ip(args: readonly string[], input?: string): string {
  try {
    return execFileSync('ip', args, {
      encoding: 'utf8',
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      ...(input !== undefined && { input }),
      env: { ...withTools(), LC_ALL: 'C' },
      maxBuffer: 64 * 1024 * 1024,
    })
  } catch (cause) {
    const { code, stderr } = cause as NodeJS.ErrnoException & { stderr?: string }
    if (code === 'ENOENT')
      throw new TproxyError('E_SYSTEM', 'run ip: not found', { hint: 'install iproute2', cause })
    throw new TproxyError('E_SYSTEM', `ip ${args.join(' ')}: ${stderr?.trim() || reason(cause)}`, { cause })
  }
}

/** The same, as JSON; iproute2 prints nothing at all for some empty lists. */
export function ipJson<T>(...args: string[]): T[] {
  const text = ip(['-json', ...args]).trim()
  return text === ''
    ? []
    : (JSON.parse(text) as T[]).filter((entry) => Object.keys(entry as object).length > 0)
}

/** A file of /proc or /sys without its newline; undefined when it is not there. */
export function readSystemFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return undefined
  }
}
