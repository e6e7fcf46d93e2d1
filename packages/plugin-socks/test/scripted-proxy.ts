import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'

/** A server on loopback that does what a script says, and knows which of its sockets are still open. */
export class ScriptedProxy implements AsyncDisposable {
  readonly sockets: Set<Socket> = new Set()
  /** What clients sent, connection by connection. */
  readonly received: Buffer[][] = []
  #server: Server

  private constructor(server: Server) {
    this.#server = server
  }

  static async listen(
    script: (peer: Peer) => void | Promise<void>,
    host = '127.0.0.1',
  ): Promise<ScriptedProxy> {
    const server = createServer({ noDelay: true })
    const proxy = new ScriptedProxy(server)
    server.on('connection', (socket) => {
      proxy.sockets.add(socket)
      const received: Buffer[] = []
      proxy.received.push(received)
      socket.on('error', () => {}).on('close', () => proxy.sockets.delete(socket))
      const peer = new Peer(socket, received)
      void (async () => script(peer))().catch(() => {})
    })
    server.listen(0, host)
    await once(server, 'listening')
    return proxy
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** Resolves when no connection is left. */
  async idle(): Promise<void> {
    while (this.sockets.size > 0) await new Promise((resolve) => setTimeout(resolve, 2))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }
}

/** One connection, as its script sees it. */
export class Peer {
  readonly socket: Socket
  #buffer = Buffer.alloc(0)
  #wake: () => void = () => {}

  constructor(socket: Socket, received: Buffer[]) {
    this.socket = socket
    socket.on('data', (chunk: Buffer) => {
      received.push(chunk)
      this.#buffer = Buffer.concat([this.#buffer, chunk])
      this.#wake()
    })
  }

  /** The next `length` bytes. */
  async read(length: number): Promise<Buffer> {
    while (this.#buffer.length < length)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    const bytes = this.#buffer.subarray(0, length)
    this.#buffer = this.#buffer.subarray(length)
    return bytes
  }

  write(bytes: Uint8Array | string | readonly number[]): void {
    this.socket.write(typeof bytes === 'string' ? bytes : Uint8Array.from(bytes))
  }
}

/** RFC 1928, 6: granted, bound to 0.0.0.0:0. */
export const granted: readonly number[] = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]

/** Accepts a client without authentication, reads a request for an IPv4 address, returns address and port. */
export async function acceptSocks5(peer: Peer): Promise<{ address: string; port: number }> {
  await peer.read(3)
  peer.write([5, 0])
  const request = await peer.read(10)
  return { address: request.subarray(4, 8).join('.'), port: request.readUInt16BE(8) }
}
