import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { listeningSockets } from './listeners.ts'

let servers = new DisposableStack()
afterEach(() => {
  servers.dispose()
  servers = new DisposableStack()
})

async function listen(host: string, port = 0, ipv6Only = false): Promise<Server> {
  const server = servers.adopt(createServer(), (it) => void it.close())
  server.listen({ host, port, ipv6Only })
  await once(server, 'listening')
  return server
}
const portOf = (server: Server) => (server.address() as AddressInfo).port

describe('who gets what is sent to an address of this host', () => {
  test('is who listens there, and not who listens everywhere for the other family', async () => {
    const port = portOf(await listen('127.0.0.1'))
    const alone = await listeningSockets('127.0.0.1', port)
    await listen('::', port, true)
    expect(alone.size).toBe(1)
    expect(await listeningSockets('127.0.0.1', port)).toEqual(alone)
    expect(await listeningSockets('::1', port)).not.toEqual(alone)
  })

  test('is nobody of the other family where nobody is there', async () => {
    const port = portOf(await listen('0.0.0.0'))
    expect((await listeningSockets('127.0.0.1', port)).size).toBe(1)
    expect(await listeningSockets('::1', port)).toEqual(new Set())
  })

  test('is who listens everywhere for both', async () => {
    const port = portOf(await listen('::'))
    expect((await listeningSockets('127.0.0.1', port)).size).toBe(1)
    expect((await listeningSockets('::1', port)).size).toBe(1)
  })
})
