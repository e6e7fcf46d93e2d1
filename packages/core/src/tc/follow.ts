import { watchNetwork } from '@tproxy/bpf'
import { reason, TproxyError } from '../errors.ts'
import type { Devices } from './devices.ts'
import type { Interface } from './interfaces.ts'

/** Changes come in flocks, and looking them up takes milliseconds. */
const settleMs = 100

/** Keeps the intercepted interfaces up to date while interfaces and routes come and go. */
export function follow(options: {
  /** Those that are meant and there, and those of them that other processes have. */
  present: () => Promise<{ present: readonly Interface[]; taken: readonly { name: string; pid: number }[] }>
  devices: Devices
  attached: () => void
  /** After every change, whether or not it concerns what is intercepted. */
  changed: () => Promise<void>
  warn: (message: string) => void
}): Disposable {
  let timer: NodeJS.Timeout | undefined
  // One after the other, or what is claimed last may be what was seen first.
  let last: Promise<void> = Promise.resolve()
  let closed = false
  const update = async () => {
    if (closed) return
    const warn = (error: unknown) =>
      options.warn(`the network changed, and not all of it is intercepted: ${reason(error)}`)
    try {
      const { present, taken } = await options.present()
      if (closed) return
      for (const { name, pid } of taken)
        warn(new TproxyError('E_BUSY', `process ${pid} already intercepts ${name}`))
      const { attached, refused } = options.devices.update(present)
      refused.forEach(warn)
      if (attached) options.attached()
      await options.changed()
    } catch (error) {
      warn(error)
    }
  }
  const watch = watchNetwork(() => {
    if (closed) return
    timer ??= setTimeout(() => {
      timer = undefined
      last = last.then(update)
    }, settleMs)
  })
  return {
    [Symbol.dispose]: () => {
      closed = true
      clearTimeout(timer)
      watch.close()
    },
  }
}
