import { watchNetwork } from '@tproxy/bpf'
import { reason, TproxyError } from '../errors.ts'
import type { Devices } from './devices.ts'
import type { Interface } from './interfaces.ts'

/** Changes come in flocks, and looking them up takes milliseconds. */
const settleMs = 100

/** What failed is tried again after so long, and each time after twice as long: what is not intercepted goes direct. */
const retryMs = { first: 1_000, most: 60_000 } as const

const never = Number.POSITIVE_INFINITY

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
  let dueAt = never
  // One after the other, or what is claimed last may be what was seen first.
  let last: Promise<void> = Promise.resolve()
  let closed = false
  let pause: number = retryMs.first
  /** What was warned of at the last time, which is not said again. */
  let known = new Set<string>()
  const warn = (errors: readonly unknown[]) => {
    const found = new Set(errors.map(reason))
    for (const each of found.difference(known))
      options.warn(`the network changed, and not all of it is intercepted: ${each}`)
    known = found
  }
  const look = async (): Promise<{ others: readonly unknown[]; refused: readonly unknown[] }> => {
    const { present, taken } = await options.present()
    if (closed) return { others: [], refused: [] }
    const { attached, refused } = options.devices.update(present)
    if (attached) options.attached()
    await options.changed()
    const busy = ({ name, pid }: (typeof taken)[number]) =>
      new TproxyError('E_BUSY', `process ${pid} already intercepts ${name}`)
    return { others: taken.map(busy), refused }
  }
  const update = async () => {
    if (closed) return
    const { others, refused } = await look().catch((error: unknown) => ({ others: [], refused: [error] }))
    if (closed) return
    warn([...others, ...refused])
    if (refused.length > 0) updateIn(pause)
    pause = refused.length > 0 ? Math.min(pause * 2, retryMs.most) : retryMs.first
  }
  const updateIn = (ms: number) => {
    const at = performance.now() + ms
    // What changes without end must not put it off without end.
    if (at >= dueAt) return
    clearTimeout(timer)
    dueAt = at
    timer = setTimeout(() => {
      dueAt = never
      last = last.then(update)
    }, ms)
  }
  const watch = watchNetwork(() => {
    if (!closed) updateIn(settleMs)
  })
  return {
    [Symbol.dispose]: () => {
      closed = true
      clearTimeout(timer)
      watch.close()
    },
  }
}
