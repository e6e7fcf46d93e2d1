import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { SocksClient, type SocksClientError } from 'socks'
import type { SocksProxy } from './proxy-url.ts'
import { malformed, refusal, unoffered } from './refusal.ts'

/**
 * Speaks one SOCKS handshake over an open socket and resolves when the proxy has connected to `host`:`port`.
 * The socket is left unread from the first byte after the reply. On failure it rejects with an error that is safe to
 * show, and the socket is the caller's to destroy.
 *
 * The `socks` library reads what a peer sends in one piece, keeps what follows the reply, and hands it back later as a
 * 'data' event that nobody may be listening to. So it never gets the socket: it gets a stand-in, which is fed one byte
 * at a time until the library says that it is done. A reply is at most 262 bytes long (RFC 1928, 6).
 */
export function handshake(socket: Socket, proxy: SocksProxy, host: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const standIn = new StandIn(socket)
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
    if (done) return
    done = true
    socket.off('readable', feed).off('end', onEnd).off('error', finish).off('close', onClose)
    if (error) reject(error)
    else resolve()
  }
  const onEnd = (): void => finish(new Error('the proxy closed the connection'))
  const onClose = (): void => finish(new Error('the connection was closed'))
  const feed = (): void => {
    const bytes = done ? null : (socket.read() as Buffer | null)
    if (bytes === null) return
    let fed = 0
    while (!done && fed < bytes.length) {
      standIn.replies.push(bytes[fed] ?? 0)
      const error = unoffered(proxy, standIn.replies)
      if (error) return finish(error)
      standIn.emit('data', bytes.subarray(fed, ++fed))
    }
    if (fed < bytes.length) socket.unshift(bytes.subarray(fed))
  }

  // Its errors carry all options, the password among them: they end here.
  client.once('error', (error: SocksClientError) => finish(refusal(error, proxy, standIn.lastReply)))
  client.once('established', () => finish(malformed(proxy, standIn.lastReply)))
  socket.on('end', onEnd).on('error', finish).on('close', onClose)
  client.connect(standIn)
  socket.on('readable', feed)
  feed()
  return promise
}

/** What the library takes for the socket: its requests go out as they are, the replies come in through `feed`. */
class StandIn extends Duplex {
  /** Every byte received. */
  readonly replies: number[] = []
  #socket: Socket
  #request = 0

  constructor(socket: Socket) {
    super()
    this.#socket = socket
  }

  /** The bytes received since the last request. */
  get lastReply(): readonly number[] {
    return this.replies.slice(this.#request)
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#request = this.replies.length
    if (this.#socket.writable) this.#socket.write(chunk)
    done()
  }

  override _read(): void {}
}
