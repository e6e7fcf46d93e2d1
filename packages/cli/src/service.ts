import { reason, type ServiceManager, serviceManager } from '@tproxy/core'

/** Tells the service manager how we are doing, where there is one. None of it throws. */
export interface Service extends Disposable {
  /** We intercept. From now on it hears that our event loop turns. */
  ready(status: string): void
  reloading(): void
  /** A reload has ended, as `status` says. */
  reloaded(status: string): void
  /** Connections may take so many milliseconds to finish. */
  stopping(drainMs: number): void
}

/** How long undoing takes at most, once connections have finished. */
const undoMs = 15_000

export function makeService(warn: (message: string) => void): Service {
  let manager: ServiceManager | undefined
  let watchdog: NodeJS.Timeout | undefined
  const attempt = (work: () => void) => {
    try {
      work()
    } catch (error) {
      warn(reason(error))
    }
  }
  const notify = (assignments: Parameters<ServiceManager['notify']>[0]) =>
    attempt(() => manager?.notify(assignments))
  attempt(() => {
    manager = serviceManager()
  })
  return {
    ready(status) {
      notify({ READY: 1, STATUS: status })
      const { watchdogMs } = manager ?? {}
      if (watchdogMs !== undefined)
        watchdog = setInterval(() => notify({ WATCHDOG: 1 }), watchdogMs / 2).unref()
    },
    // The time is for Type=notify-reload, which systemd has since 253.
    reloading: () => notify({ RELOADING: 1, MONOTONIC_USEC: process.hrtime.bigint() / 1000n }),
    reloaded: (status) => notify({ READY: 1, STATUS: status }),
    stopping: (drainMs) =>
      notify({ STOPPING: 1, STATUS: 'connections finish', EXTEND_TIMEOUT_USEC: (drainMs + undoMs) * 1000 }),
    [Symbol.dispose]() {
      clearInterval(watchdog)
      manager?.[Symbol.dispose]()
    },
  }
}
