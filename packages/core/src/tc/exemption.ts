import { Exemption, type Steering } from '@tproxy/bpf'
import { TproxyError } from '../errors.ts'
import { holders, listeningSockets, localAddresses } from './listeners.ts'

/** How long an answer holds: an upstream that is restarted gets another pid. */
const freshMs = 1_000

/**
 * Keeps upstreams on this host out of their own way: whoever listens where we connect to must not have its connections
 * steered back to us. It is found by its socket, so no mark or name can be forged.
 */
export class UpstreamExemption {
  readonly #steering: Steering
  readonly #checked = new Map<string, { at: number; done: Promise<void> }>()
  #known = new Set<string>()

  constructor(steering: Steering) {
    this.#steering = steering
  }

  /**
   * Exempts the process that listens at `host:port`, with its forks. Does nothing for addresses of other hosts and where
   * nobody listens yet. Throws `E_LOOP` when somebody listens and cannot be found.
   */
  ensure({ host, port }: { host: string; port: number }): Promise<void> {
    const key = `${host} ${port}`
    const checked = this.#checked.get(key)
    if (checked !== undefined && performance.now() - checked.at < freshMs) return checked.done
    if (this.#checked.size > 256) this.#checked.clear()
    const found = this.#check(host, port)
    const done = found.then(() => {})
    const answer = { at: performance.now(), done }
    this.#checked.set(key, answer)
    // One that starts now, such as by the command itself, must be seen before its first connection.
    const forget = () => {
      if (this.#checked.get(key) === answer) this.#checked.delete(key)
    }
    void found.then((complete) => complete || forget(), forget)
    return done
  }

  /** False when somebody may come to listen there: nobody does yet. */
  async #check(host: string, port: number): Promise<boolean> {
    let complete = true
    // An unknown name is for the upstream to report.
    for (const address of await localAddresses(host).catch(() => [])) {
      const inodes = await listeningSockets(address, port)
      complete &&= inodes.size > 0
      if (inodes.size === 0 || inodes.isSubsetOf(this.#known)) continue
      const pids = (await holders(inodes)).filter((pid) => pid !== process.pid)
      // A socket that init holds for a service (socket activation) says nothing of who will serve it.
      const servers = pids.filter((pid) => pid !== 1)
      if (servers.length === 0 && pids.length > 0) continue
      if (pids.length === 0 && !(await holders(inodes)).includes(process.pid))
        throw new TproxyError(
          'E_LOOP',
          `exempt the upstream at ${address}:${port}: the process that listens there was not found`,
          {
            hint: 'its own connections would come back to it; run it on another host, or run as root in its pid namespace',
          },
        )
      for (const pid of servers) this.#steering.exempt(pid, Exemption.process | Exemption.forks)
      this.#known = this.#known.union(inodes)
    }
    return complete
  }
}
