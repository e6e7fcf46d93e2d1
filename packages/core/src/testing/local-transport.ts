import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { Subject } from 'rxjs'
import { type Endpoint, endpoint } from '../endpoint.ts'
import type { Accepted, Transport } from '../transport.ts'
import { type Claim, claimed } from './claim.ts'
import { socketPair } from './socket-pair.ts'

/** Reaches what a connection claims to want. */
type Direct = (destination: Endpoint, signal: AbortSignal) => Promise<Duplex>

/**
 * A transport whose connections a test makes itself. They are real TCP connections over 127.0.0.1; only the rest is claimed.
 *
 * ```ts
 * const origin = new TestUpstream()
 * const transport = new LocalTransport({ direct: origin.connect })
 * await using proxy = await TransparentProxy.open({ transport, plugins: [myPlugin] })
 * const program = await transport.connect({ destination: { address: '203.0.113.1', port: 443 } })
 * ```
 */
export class LocalTransport implements Transport {
  readonly accepted: Subject<Accepted> = new Subject()
  readonly #direct: Direct
  readonly #programs = new Set<Socket>()
  #stopped = false

  /** `direct` stands for reaching the original destination; by default nothing is reachable. */
  constructor({ direct }: { direct?: Direct } = {}) {
    this.#direct = direct ?? (() => Promise.reject(new Error('connect ECONNREFUSED')))
  }

  /** Makes a connection and returns the program's end of it; the other is on its way to the plugins. */
  async connect(claim: Claim): Promise<Socket> {
    if (this.#stopped) throw new Error('the transport takes nothing new')
    const [program, socket] = await socketPair()
    this.#programs.add(program)
    program.once('close', () => this.#programs.delete(program))
    const rest = claimed(claim)
    this.accepted.next({
      ...rest,
      socket,
      source: endpoint('127.0.0.1', program.localPort ?? 0),
      direct: (signal) => this.#direct(rest.destination, signal),
    })
    return program
  }

  stop(): void {
    this.#stopped = true
  }

  /** Ends all programs' connections; the proxy does this when it closes. */
  async close(): Promise<void> {
    this.stop()
    for (const program of this.#programs) program.destroy()
  }
}
