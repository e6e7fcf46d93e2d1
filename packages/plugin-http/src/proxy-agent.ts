import { Agent } from 'node:http'
import type { Duplex } from 'node:stream'
import { dial, type Way } from './dial.ts'

/**
 * The connections to the proxy that belong to one client's connection: kept alive between its requests, closed with it.
 * Sharing them among clients would save handshakes, and would let one client's bad luck with a connection that the
 * proxy is just closing become another's.
 *
 * node's own `proxyEnv` cannot do this: its agent takes no TLS options for https proxies, normalises the path, throws
 * when the Host header differs from the target, and pools by origin instead of by proxy.
 */
export class ProxyAgent extends Agent {
  readonly #way: Way

  constructor(way: Way) {
    super({ keepAlive: true })
    this.#way = way
  }

  /** All requests go to the proxy, wherever they are bound for. */
  override getName(): string {
    return this.#way.proxy.name
  }

  override createConnection(): Duplex {
    return dial(this.#way, { allowHalfOpen: false })
  }
}
