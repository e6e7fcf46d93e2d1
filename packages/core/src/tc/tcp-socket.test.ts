import { once } from 'node:events'
import { expect, test, vi } from 'vitest'
import { socketPair } from '../testing/socket-pair.ts'
import { TcpSocket } from './tcp-socket.ts'

// It takes privileges. What a socket under TCP_REPAIR refuses is not seen here: that nobody asks it is.
vi.mock(import('@tproxy/bpf'), async (original) => ({ ...(await original()), silence: () => {} }))

test('a silent socket is read by nobody, and stays open until it is closed', async () => {
  const [program, accepted] = await socketPair()
  let isClosed = false
  const socket = new TcpSocket(accepted, () => {
    isClosed = true
  })
  program.write('in time')
  await once(accepted.resume(), 'data')
  socket.silence()
  await once(accepted, 'close')
  program.write('late')
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(accepted.bytesRead).toBe('in time'.length)
  expect([isClosed, socket.hasStream]).toEqual([false, false])
  expect(socket.descriptor).toBeDefined()
  socket.close()
  expect(isClosed).toBe(true)
  program.on('error', () => {}).destroy()
})
