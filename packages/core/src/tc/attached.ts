import type { Splicing, Steering } from '@tproxy/bpf'
import { reason } from '../errors.ts'
import type { Interface } from './interfaces.ts'

/** Between looks, which cost a few system calls each. */
const everyMs = 1_000

/**
 * Looks now and then whether our programs are attached as they were, puts back what somebody has detached, and says who decides
 * about packets before us.
 */
export function watchAttached(options: {
  steering: Steering
  splicing: Splicing | undefined
  interfaces: () => readonly Interface[]
  /** Links are others than before. */
  attached: () => void
  warn: (message: string) => void
}): Disposable {
  const { steering, splicing, interfaces, attached, warn } = options
  const told = new Map<string, string>()
  const tell = (about: string, message: string) => {
    if (message !== '' && told.get(about) !== message) warn(message)
    told.set(about, message)
  }
  const look = () => {
    try {
      const restored = [...steering.restore(), ...(splicing?.restore() ?? [])]
      if (restored.length > 0) {
        attached()
        warn(`somebody detached ${restored.join(', ')}, which is back; connections went direct meanwhile`)
      }
      for (const { name, ifindex } of interfaces()) {
        const others = steering.before(ifindex)
        const they = others.length === 1 ? 'it redirects or drops' : 'they redirect or drop'
        tell(
          name,
          others.length === 0
            ? ''
            : `on ${name}, ${others.join(' and ')} runs before us: what ${they} is not intercepted`,
        )
      }
    } catch (error) {
      tell('', `look whether all is attached: ${reason(error)}`)
    }
  }
  const timer = setInterval(look, everyMs).unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
