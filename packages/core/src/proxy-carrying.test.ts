import type { Socket } from 'node:net'
import { buffer, text } from 'node:stream/consumers'
import { expect, test } from 'vitest'
import { ending } from './testing/ending.ts'
import { useStage } from './testing/stage.ts'

const destination = { address: '203.0.113.1', port: 443 }

const stage = useStage()

test('a half-closed connection still carries the other direction', async () => {
  const { dial } = await stage.origin(async (socket) => {
    const question = await text(socket)
    setTimeout(() => socket.end(`answer to ${question}`), 50)
  })
  const { transport } = await stage.start({}, dial)
  const client = await transport.connect({ destination })
  client.end('question')
  expect(await text(client)).toBe('answer to question')
})

test('a server that ends first still gets what the client sends', async () => {
  const received = Promise.withResolvers<string>()
  const { dial } = await stage.origin((socket) => {
    socket.end('bye')
    void text(socket).then(received.resolve)
  })
  const { transport } = await stage.start({}, dial)
  const client = await transport.connect({ destination })
  expect(await text(client)).toBe('bye')
  client.end('still here')
  expect(await received.promise).toBe('still here')
})

test('a reset travels on as a reset, in both directions', async () => {
  const seen = Promise.withResolvers<string>()
  const { dial } = await stage.origin((socket) => {
    socket.once('data', (data) => {
      if (data.toString() === 'reset me') socket.resetAndDestroy()
      else void ending(socket).then(seen.resolve)
    })
  })
  const { transport } = await stage.start({}, dial)
  const first = await transport.connect({ destination })
  first.write('reset me')
  expect(await ending(first)).toBe('ECONNRESET')
  const second = await transport.connect({ destination })
  second.write('hello')
  await new Promise((resolve) => setTimeout(resolve, 50))
  second.resetAndDestroy()
  expect(await seen.promise).toBe('ECONNRESET')
})

test('a slow reader stalls the sender instead of filling memory', async () => {
  const held = Promise.withResolvers<Socket>()
  const { dial } = await stage.origin((socket) => {
    socket.pause()
    held.resolve(socket)
  })
  const { proxy, transport, nextSession } = await stage.start({}, dial)
  const pending = nextSession()
  const client = await transport.connect({ destination })
  const chunk = Buffer.alloc(1 << 20)
  let written = 0
  const pour = () => {
    while (written < 256 && client.write(chunk)) written++
    if (written < 256) client.once('drain', pour)
  }
  pour()
  const session = await pending
  await new Promise((resolve) => setTimeout(resolve, 500))
  const stalled = session.bytes.sent
  // What two sockets and two streams buffer, not the 256 MiB on offer.
  expect(stalled).toBeLessThan(64 << 20)
  expect(proxy.active).toBe(1)
  const body = buffer(await held.promise)
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(session.bytes.sent).toBeGreaterThan(stalled)
  client.destroy()
  await body.catch(() => {})
})

test('an idle connection is reset on both sides after the idle time, a half-closed one after its own', async () => {
  const { dial } = await stage.origin((socket) => socket.resume())
  const { transport, nextSession } = await stage.start(
    { timeouts: { idleMs: 120, halfClosedMs: 60, drainMs: 0 } },
    dial,
  )
  const pending = nextSession()
  const client = await transport.connect({ destination })
  expect(await ending(client)).toBe('ECONNRESET')
  expect((await (await pending).ended).end).toMatchObject({
    how: 'timeout',
    error: { message: 'idle for 120 ms' },
  })
  const again = nextSession()
  const half = await transport.connect({ destination })
  half.end()
  expect(await ending(half)).toBe('ECONNRESET')
  expect((await (await again).ended).end).toMatchObject({
    error: { message: 'half-closed and idle for 60 ms' },
  })
})
