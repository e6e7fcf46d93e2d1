import { once } from 'node:events'
import { connect } from 'node:net'
import { duplexPair } from 'node:stream'
import { expect, test, vi } from 'vitest'
import { scripted } from '../test/proxy-server.ts'
import { join } from './join.ts'

test('a tunnel for a client that has gone meanwhile is reset', async () => {
  const { promise: ended, resolve } = Promise.withResolvers<unknown>()
  await using proxy = await scripted((socket) => void socket.on('error', resolve).resume())
  const tunnel = connect(proxy.port, '127.0.0.1')
  await once(tunnel, 'connect')
  const [client] = duplexPair()
  client.destroy()
  await once(client, 'close')
  const fail = vi.fn()
  join(client, tunnel, fail)
  expect(await ended).toMatchObject({ code: 'ECONNRESET' })
  await proxy.idle()
})
