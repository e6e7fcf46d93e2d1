import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { expect, test } from 'vitest'
import { reset } from './relay.ts'

test('a socket is reset also while its end waits behind bytes that nobody takes', async () => {
  const server = createServer((socket) => socket.pause().on('error', () => {})).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.end(Buffer.alloc(50_000_000))
  await new Promise((resolve) => setTimeout(resolve, 50))
  reset(socket)
  await once(socket, 'close', { signal: AbortSignal.timeout(1000) })
  expect(socket.closed).toBe(true)
  server.close()
})
