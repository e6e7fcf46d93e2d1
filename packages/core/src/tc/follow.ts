import { watchNetwork } from '@tproxy/bpf'
import { reason } from '../errors.ts'
import type { Devices } from './devices.ts'
import { type InterfaceSelection, presentInterfaces } from './interfaces.ts'

/** Changes come in flocks, and looking them up takes milliseconds. */
const settleMs = 100

/** Keeps the intercepted interfaces up to date while interfaces and routes come and go. */
export function follow(options: {
  selection: InterfaceSelection
  devices: Devices
  attached: () => void
  /** After every change, whether or not it concerns what is intercepted. */
  changed: () => Promise<void>
  warn: (message: string) => void
}): Disposable {
  let timer: NodeJS.Timeout | undefined
  let closed = false
  const update = async () => {
    timer = undefined
    const warn = (error: unknown) =>
      options.warn(`the network changed, and not all of it is intercepted: ${reason(error)}`)
    try {
      const { attached, refused } = options.devices.update(presentInterfaces(options.selection))
      refused.forEach(warn)
      if (attached) options.attached()
      await options.changed()
    } catch (error) {
      warn(error)
    }
  }
  const watch = watchNetwork(() => {
    if (closed) return
    timer ??= setTimeout(() => void update(), settleMs)
  })
  return {
    [Symbol.dispose]: () => {
      closed = true
      clearTimeout(timer)
      watch.close()
    },
  }
}
