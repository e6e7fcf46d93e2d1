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
    const detached = [...steering.restore(), ...(splicing?.restore() ?? [])]
    const problems = detached.flatMap(({ error }) => (error === undefined ? [] : reason(error)))
    const back = detached.filter(({ error }) => error === undefined).map(({ name }) => name)
    try {
      if (back.length > 0) {
        const are = back.length === 1 ? 'is' : 'are'
        warn(`somebody detached ${back.join(', ')}, which ${are} back; ${meanwhile(back)} meanwhile`)
        attached()
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
      problems.push(reason(error))
    }
    tell('', problems.length === 0 ? '' : `look whether all is attached: ${problems.join('; ')}`)
  }
  const timer = setInterval(look, everyMs).unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** What became of connections without these programs: one takes them off their way, the others carry what was taken. */
function meanwhile(names: readonly string[]): string {
  const taking = names.filter((name) => name.startsWith('wan_egress')).length
  const went = taking > 0 ? ['connections went direct'] : []
  const broke = taking < names.length ? ['those that we carry stood still, or broke off,'] : []
  return [...went, ...broke].join(', and ')
}
