import { closeSync, writeSync } from 'node:fs'
import { datagramSocket } from '@tproxy/bpf'
import { reason, TproxyError } from './errors.ts'

/** The service manager that started this process, such as systemd; see sd_notify(3). */
export interface ServiceManager extends Disposable {
  /** It wants to hear `WATCHDOG=1` within so many milliseconds, again and again; undefined where it does not. */
  readonly watchdogMs: number | undefined
  /** Tells it assignments, such as `{ READY: 1, STATUS: 'listening' }`. Throws `E_SYSTEM` when it cannot be told. */
  notify(assignments: Readonly<Record<string, string | number | bigint>>): void
}

/** undefined where nobody asked to be told ($NOTIFY_SOCKET). Throws `E_SYSTEM` when the socket cannot be reached. */
export function serviceManager(env: NodeJS.ProcessEnv = process.env): ServiceManager | undefined {
  const path = env['NOTIFY_SOCKET']
  if (path === undefined || !/^[/@]./.test(path)) return undefined
  const attempt = <T>(work: () => T): T => {
    try {
      return work()
    } catch (cause) {
      throw new TproxyError('E_SYSTEM', `tell the service manager at ${path}: ${reason(cause)}`, { cause })
    }
  }
  const fd = attempt(() => datagramSocket(path))
  const forUs = env['WATCHDOG_PID'] === undefined || Number(env['WATCHDOG_PID']) === process.pid
  const watchdogMs = Number(env['WATCHDOG_USEC']) / 1000
  return {
    watchdogMs: forUs && watchdogMs > 0 ? watchdogMs : undefined,
    notify: (assignments) => {
      // A line break would begin another assignment.
      const lines = Object.entries(assignments).map(
        ([name, value]) => `${name}=${String(value).replaceAll('\n', ' ')}`,
      )
      attempt(() => writeSync(fd, lines.join('\n')))
    },
    [Symbol.dispose]: () => closeSync(fd),
  }
}
