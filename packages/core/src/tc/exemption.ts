import { Exemption, type Steering } from '@tproxy/bpf'
import { TproxyError } from '../errors.ts'
import { startTime } from './instances.ts'
import { type Holder, holders, listeningSockets, localAddresses, stillHolds } from './listeners.ts'

/** How long an answer holds while the processes it found still listen: others may join them (SO_REUSEPORT). */
const freshMs = 1_000

interface Answer {
  readonly at: number
  readonly done: Promise<void>
  /** Who listens: one holder of each socket. Empty until it is known. */
  listeners: readonly Holder[]
}

/**
 * Keeps upstreams on this host out of their own way: whoever listens where we connect to must not have its connections
 * steered back to us. It is found by its socket, so no mark or name can be forged.
 */
export class UpstreamExemption implements Disposable {
  readonly #steering: Steering
  readonly #answers = new Map<string, Answer>()
  /** By inode. */
  readonly #known = new Map<string, Holder>()
  /** Exempt processes, by pid, and when they started. */
  readonly #exempt = new Map<number, string>()
  readonly #round: NodeJS.Timeout

  constructor(steering: Steering) {
    this.#steering = steering
    // Pids come again, and who has one later is not exempt.
    this.#round = setInterval(() => this.#forgetEnded(), freshMs).unref()
  }

  [Symbol.dispose](): void {
    clearInterval(this.#round)
  }

  /**
   * Exempts the process that listens at `host:port`, with its forks. Does nothing for addresses of other hosts and where
   * nobody listens yet. Throws `E_LOOP` when somebody listens and cannot be found.
   */
  ensure({ host, port }: { host: string; port: number }): Promise<void> {
    const key = `${host} ${port}`
    const last = this.#answers.get(key)
    // One that was started again is another process, and must be seen before its first connection.
    if (last !== undefined && performance.now() - last.at < freshMs && last.listeners.every(stillHolds))
      return last.done
    if (this.#answers.size > 256) this.#answers.clear()
    const found = this.#check(host, port)
    const answer: Answer = { at: performance.now(), done: found.then(() => {}), listeners: [] }
    this.#answers.set(key, answer)
    // So must one that starts now, such as by the command itself.
    const forget = () => {
      if (this.#answers.get(key) === answer) this.#answers.delete(key)
    }
    void found.then((listeners) => {
      if (listeners === undefined) forget()
      else answer.listeners = listeners
    }, forget)
    return answer.done
  }

  /** Who listens there; undefined when somebody may come to: nobody does yet. */
  async #check(host: string, port: number): Promise<readonly Holder[] | undefined> {
    for (const [inode, holder] of this.#known) if (!stillHolds(holder)) this.#known.delete(inode)
    let complete = true
    const listeners: Holder[] = []
    // An unknown name is for the upstream to report.
    for (const address of await localAddresses(host).catch(() => [])) {
      const inodes = await listeningSockets(address, port)
      complete &&= inodes.size > 0
      const known = [...inodes].flatMap((inode) => this.#known.get(inode) ?? [])
      if (known.length === inodes.size) {
        listeners.push(...known)
        continue
      }
      const found = await holders(inodes)
      if (found.length === 0)
        throw new TproxyError(
          'E_LOOP',
          `exempt the upstream at ${address}:${port}: the process that listens there was not found`,
          {
            hint: 'its own connections would come back to it; run it on another host, or run as root in its pid namespace',
          },
        )
      const first = new Map(found.toReversed().map((holder) => [holder.inode, holder]))
      listeners.push(...first.values())
      // A socket that init holds for a service (socket activation) says nothing of who will serve it.
      const servers = new Set(found.map(({ pid }) => pid).filter((pid) => pid !== process.pid && pid !== 1))
      if (servers.size === 0 && found.some(({ pid }) => pid === 1)) continue
      for (const pid of servers) this.#add(pid)
      for (const [inode, holder] of first) this.#known.set(inode, holder)
    }
    return complete ? listeners : undefined
  }

  #add(pid: number): void {
    const started = startTime(pid) ?? ''
    this.#steering.exempt(pid, Exemption.process | Exemption.forks)
    this.#exempt.set(pid, started)
  }

  #forgetEnded(): void {
    for (const [pid, started] of this.#exempt)
      if (hasEnded(pid, started)) {
        this.#exempt.delete(pid)
        for (const [inode, holder] of this.#known) if (holder.pid === pid) this.#known.delete(inode)
        this.#steering.intercept(pid)
      }
  }
}

/** Where that cannot be found out now, such as without a descriptor left, it is found out later. */
function hasEnded(pid: number, started: string): boolean {
  try {
    return startTime(pid) !== started
  } catch {
    return false
  }
}
