import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { expect, test } from 'vitest'
import { reset } from './relay.ts'

test('a socket whose end is only being asked for is reset too', async () => {
  const server = createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  await once(socket, 'connect')
  const closed = new Promise((resolve) => socket.once('close', resolve).on('error', () => {}))
  socket.end('x')
  reset(socket)
  await closed
  expect(socket.closed).toBe(true)
  server.close()
}, 1000)
