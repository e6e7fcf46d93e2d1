import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { firstValueFrom } from 'rxjs'
import { afterEach } from 'vitest'
import { type ProxyOptions, TransparentProxy } from '../proxy.ts'
import type { Session } from '../session.ts'
import { LocalTransport } from './local-transport.ts'

/** Proxies, and servers that stand for destinations; they go with the test. */
export function useStage(): Stage {
  const stage = new Stage()
  afterEach(() => stage.clear())
  return stage
}

class Stage {
  #cleanUp = new AsyncDisposableStack()

  /** A server that stands for the destination; `serve` is its behaviour. */
  async origin(serve: (socket: Socket) => void): Promise<Server & { dial: () => Promise<Socket> }> {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {})
      serve(socket)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    this.#cleanUp.defer(() => void server.close())
    const dial = async () => {
      const { port } = server.address() as { port: number }
      const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
      await once(socket, 'connect')
      return socket
    }
    return Object.assign(server, { dial })
  }

  async start(
    options: Partial<ProxyOptions>,
    dial?: () => Promise<Socket>,
  ): Promise<{ proxy: TransparentProxy; transport: LocalTransport; nextSession: () => Promise<Session> }> {
    const transport = new LocalTransport(dial === undefined ? {} : { direct: dial })
    const proxy = await TransparentProxy.open({ timeouts: { drainMs: 0 }, ...options, transport })
    this.#cleanUp.use(proxy)
    return { proxy, transport, nextSession: () => firstValueFrom(proxy.sessions) }
  }

  async clear(): Promise<void> {
    const all = this.#cleanUp
    this.#cleanUp = new AsyncDisposableStack()
    await all.disposeAsync()
  }
}

export const echo = (socket: Socket): Socket => socket.pipe(socket)
