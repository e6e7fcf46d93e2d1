import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { UpstreamSocket } from '@tproxy/core'
import { expect, test } from 'vitest'
import { LocalServer } from '../local/server.ts'

const never = new AbortController().signal

async function proxy(answer: (socket: Socket) => void): Promise<LocalServer> {
  return LocalServer.listen(createServer({ allowHalfOpen: true, noDelay: true }, answer))
}

test.each(['127.0.0.1', 'localhost'])('what follows a handshake with %s is in its stream', async (host) => {
  await using server = await proxy((socket) => {
    socket.once('data', (asked) => socket.end(`you said ${String(asked)}, and more`))
  })
  const socket = await UpstreamSocket.connect({ host, port: server.port }, never)
  socket.write(Buffer.from('hello'))
  for (let left = 'you said hello'.length; left > 0; ) {
    const { length } = (await socket.peek()).subarray(0, left)
    socket.take(length)
    left -= length
  }
  // It is not ours any more, and stays open.
  const { stream } = socket.release()
  socket.close()
  expect(await text(stream)).toBe(', and more')
  stream.end()
  await server.idle()
})

test('what is not taken is shown again, with what has come since', async () => {
  await using server = await proxy((socket) => {
    socket.write('a')
    setTimeout(() => socket.end('b'), 50)
  })
  using socket = await UpstreamSocket.connect({ host: '127.0.0.1', port: server.port }, never)
  expect(String(await socket.peek())).toBe('a')
  await wait(100)
  expect(String(await socket.peek())).toBe('ab')
  socket.take(2)
  expect(await socket.peek()).toHaveLength(0)
})

test('who waits for an answer hears that the connection was closed', async () => {
  await using server = await proxy(() => {})
  const socket = await UpstreamSocket.connect({ host: '127.0.0.1', port: server.port }, never)
  const answer = socket.peek()
  socket.close()
  await expect(answer).rejects.toThrow('the connection was closed')
  await expect(socket.peek()).rejects.toThrow('the connection was closed')
})

test('who waits for an answer hears of a reset', async () => {
  await using server = await proxy((socket) => void setTimeout(() => socket.resetAndDestroy(), 20))
  using socket = await UpstreamSocket.connect({ host: '127.0.0.1', port: server.port }, never)
  await expect(socket.peek()).rejects.toThrow('ECONNRESET')
})

test('a proxy that does not read is no proxy', async () => {
  await using server = await proxy((socket) => void socket.pause())
  using socket = await UpstreamSocket.connect({ host: '127.0.0.1', port: server.port }, never)
  const much = Buffer.alloc(1 << 24)
  expect(() => socket.write(much)).toThrow('the proxy does not take')
})

test.each(['127.0.0.1', 'localhost'])('%s that refuses is named', async (host) => {
  const { port } = await gone()
  await expect(UpstreamSocket.connect({ host, port }, never)).rejects.toThrow(
    expect.objectContaining({ code: 'ECONNREFUSED' }),
  )
})

test('what is aborted before it begins connects to nobody', async () => {
  let connections = 0
  await using server = await proxy(() => connections++)
  const aborted = AbortSignal.abort(new Error('no more'))
  await expect(UpstreamSocket.connect({ host: '127.0.0.1', port: server.port }, aborted)).rejects.toThrow(
    'no more',
  )
  await wait(20)
  expect(connections).toBe(0)
})

/** Where nobody listens any more. */
async function gone(): Promise<{ port: number }> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return { port }
}
