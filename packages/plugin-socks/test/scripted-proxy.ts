import { createServer, type Socket } from 'node:net'
import { LocalServer } from '../../../test/local/server.ts'

export interface ScriptedProxy extends LocalServer {
  /** What clients sent, connection by connection. */
  readonly received: Buffer[][]
}

/** A server on loopback that does what a script says with each connection. */
export async function scriptedProxy(
  script: (peer: Peer) => void | Promise<void>,
  host?: string,
): Promise<ScriptedProxy> {
  const all: Buffer[][] = []
  const server = createServer({ noDelay: true }, (socket) => {
    const received: Buffer[] = []
    all.push(received)
    const peer = new Peer(socket, received)
    void (async () => script(peer))().catch(() => {})
  })
  return Object.assign(await LocalServer.listen(server, host), { received: all })
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
