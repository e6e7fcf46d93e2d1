import { Duplex } from 'node:stream'
import type { UpstreamSocket } from '@tproxy/core'
import { SocksClient, type SocksClientError } from 'socks'
import type { SocksProxy } from './proxy-url.ts'
import { malformed, refusal, unoffered } from './refusal.ts'

/**
 * Speaks one SOCKS handshake over a connection and resolves when the proxy has connected to `host`:`port`. Nothing after the
 * reply is taken. On failure it rejects with an error that is safe to show, and the connection is the caller's to close.
 *
 * The `socks` library reads what a peer sends in one piece, keeps what follows the reply, and hands it back later as a
 * 'data' event that nobody may be listening to. So it never gets the connection: it gets a stand-in, which is fed one byte
 * at a time until the library says that it is done. A reply is at most 262 bytes long (RFC 1928, 6).
 */
export function handshake(
  socket: UpstreamSocket,
  proxy: SocksProxy,
  host: string,
  port: number,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const standIn = new StandIn(socket, reject)
  const client = new SocksClient({
    command: 'connect',
    destination: { host, port },
    proxy: {
      type: proxy.version,
      host: proxy.host,
      port: proxy.port,
      ...(proxy.user === undefined ? {} : { userId: proxy.user }),
      ...(proxy.password === undefined ? {} : { password: proxy.password }),
    },
    timeout: 1,
  })
  // The library never clears its timer, which keeps the client, a buffer of 4 KB and the password alive until it fires.
  // So it fires at once and does nothing: the deadline is ours, over all steps together.
  Object.assign(client, { onEstablishedTimeout: () => {} })

  let done = false
  const finish = (error?: Error): void => {
    done = true
    if (error) reject(error)
    else resolve()
  }
  const feed = async (): Promise<void> => {
    while (!done) {
      const bytes = await socket.peek()
      if (bytes.length === 0) throw new Error('the proxy closed the connection')
      let fed = 0
      while (!done && fed < bytes.length) {
        standIn.replies.push(bytes[fed] ?? 0)
        const error = unoffered(proxy, standIn.replies)
        if (error) throw error
        standIn.emit('data', bytes.subarray(fed, ++fed))
      }
      socket.take(fed)
    }
  }
  // Its errors carry all options, the password among them: they end here.
  client.once('error', (error: SocksClientError) => finish(refusal(error, proxy, standIn.lastReply)))
  client.once('established', () => finish(malformed(proxy, standIn.lastReply)))
  client.connect(standIn)
  feed().catch(finish)
  return promise
}

/** What the library takes for the socket: its requests go out as they are, the replies come in one byte at a time. */
class StandIn extends Duplex {
  /** Every byte received. */
  readonly replies: number[] = []
  readonly #socket: UpstreamSocket
  readonly #broke: (error: unknown) => void
  #request = 0

  /** `broke` hears of a request that cannot be sent; the library would call it a malformed reply. */
  constructor(socket: UpstreamSocket, broke: (error: unknown) => void) {
    super()
    this.#socket = socket
    this.#broke = broke
  }

  /** The bytes received since the last request. */
  get lastReply(): readonly number[] {
    return this.replies.slice(this.#request)
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#request = this.replies.length
    try {
      this.#socket.write(chunk)
    } catch (error) {
      this.#broke(error)
    }
    done()
  }

  override _read(): void {}
}
