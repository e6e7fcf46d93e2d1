/**
 * Connections without privileges, for testing plugins and what is built on the stream; and the parts that compiled rules
 * are made of, to be tested against {@link matchRules}.
 *
 * @module
 */
import { once } from 'node:events'
import { connect, createServer, type Server, Socket } from 'node:net'
import { Subject } from 'rxjs'
import { type Endpoint, endpoint } from './endpoint.ts'
import type { ProcessInfo } from './process.ts'
import type { Accepted, Transport } from './transport.ts'

/** What a connection made by {@link LocalTransport} claims to be. */
export interface Claim {
  readonly destination: { readonly address: string; readonly port: number }
  readonly process?: ProcessInfo
  readonly interface?: string
  readonly rule?: number
}

/**
 * A transport whose connections a test makes itself. They are real TCP connections over 127.0.0.1, so that half-close,
 * resets and back-pressure behave as they do in earnest; only the destination is claimed.
 *
 * ```ts
 * await using transport = await LocalTransport.open({ direct: () => connectSomewhere() })
 * await using proxy = await TransparentProxy.open({ transport, plugins: [myPlugin] })
 * const client = await transport.connect({ destination: { address: '203.0.113.1', port: 443 } })
 * ```
 */
export class LocalTransport implements Transport, AsyncDisposable {
  readonly accepted: Subject<Accepted> = new Subject()
  readonly #server: Server
  readonly #direct: (destination: Endpoint, signal: AbortSignal) => Promise<Socket>
  readonly #clients = new Set<Socket>()
  #stopped = false

  /** `direct` stands for reaching the original destination; by default nothing is reachable. */
  static async open(
    options: { direct?: (destination: Endpoint, signal: AbortSignal) => Promise<Socket> } = {},
  ): Promise<LocalTransport> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const unreachable = () => Promise.reject(new Error('connect ECONNREFUSED'))
    return new LocalTransport(server, options.direct ?? unreachable)
  }

  private constructor(
    server: Server,
    direct: (destination: Endpoint, signal: AbortSignal) => Promise<Socket>,
  ) {
    this.#server = server
    this.#direct = direct
  }

  /** Makes a connection and returns the program's end of it; the other is on its way to the plugins. */
  async connect(claim: Claim): Promise<Socket> {
    if (this.#stopped) throw new Error('the transport takes nothing new')
    const { port } = this.#server.address() as { port: number }
    const client = connect({ host: '127.0.0.1', port, allowHalfOpen: true })
    const [[socket]] = (await Promise.all([once(this.#server, 'connection'), once(client, 'connect')])) as [
      [Socket],
      [],
    ]
    this.#clients.add(client)
    client.once('close', () => this.#clients.delete(client))
    const destination = endpoint(claim.destination.address, claim.destination.port)
    this.accepted.next({
      ...claim,
      socket,
      source: endpoint('127.0.0.1', client.localPort ?? 0),
      destination,
      direct: (signal) => this.#direct(destination, signal),
    })
    return client
  }

  stop(): void {
    this.#stopped = true
  }

  async close(): Promise<void> {
    this.stop()
    for (const client of this.#clients) client.destroy()
    // Sockets that were taken may live on.
    this.#server.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

export { type CompiledRules, compile } from './rules/compiled/compile.ts'
export { lookUp } from './rules/compiled/lookup.ts'
export { toQuestion } from './rules/explain.ts'
export { type Names, systemNames } from './rules/names.ts'
export { resolveList } from './rules/read.ts'
export { matchRules } from './rules/reference.ts'
export { shadowed } from './rules/shadowed.ts'
