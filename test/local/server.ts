// For the unit tests of all packages.
import { once } from 'node:events'
import type { AddressInfo, Server, Socket } from 'node:net'

/** A server on loopback that knows which of its connections are still open. */
export class LocalServer implements AsyncDisposable {
  readonly sockets: Set<Socket> = new Set()
  /** How many connections there have been. */
  count = 0
  #server: Server

  private constructor(server: Server) {
    this.#server = server
  }

  static async listen(server: Server, host = '127.0.0.1'): Promise<LocalServer> {
    const local = new LocalServer(server)
    server.on('connection', (socket: Socket) => {
      local.count++
      local.sockets.add(socket)
      socket.on('error', () => {}).on('close', () => local.sockets.delete(socket))
    })
    server.listen(0, host)
    await once(server, 'listening')
    return local
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
