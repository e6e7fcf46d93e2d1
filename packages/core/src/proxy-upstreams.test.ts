import { Socket } from 'node:net'
import { Duplex, duplexPair } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { endpoint } from './endpoint.ts'
import { asLazy } from './lazy-stream.ts'
import { ending } from './testing/ending.ts'
import { socketPair } from './testing/socket-pair.ts'
import { useStage } from './testing/stage.ts'
import type { Upstream } from './upstream.ts'
import { drop, via } from './verdict.ts'

const destination = { address: '203.0.113.1', port: 443 }

const stage = useStage()

test('an upstream that fails gives the client a reset at once, never a direct connection', async () => {
  let reached = 0
  const { dial } = await stage.origin(() => reached++)
  const upstream: Upstream = { name: 'broken', connect: () => Promise.reject(new Error('no way')) }
  const { transport, nextSession } = await stage.start({ plugins: [() => via(upstream)] }, dial)
  const pending = nextSession()
  const client = await transport.connect({ destination })
  expect(await ending(client)).toBe('ECONNRESET')
  const session = await (await pending).ended
  expect(session.end).toMatchObject({ how: 'failed', error: { message: 'no way' } })
  expect(session.upstream).toBe('broken')
  expect(reached).toBe(0)
})

test('an upstream that hangs is given up at the deadline, and what it opens later is closed', async () => {
  const late = Promise.withResolvers<Socket>()
  const upstream: Upstream = { name: 'slow', connect: () => late.promise }
  const { transport, nextSession } = await stage.start({
    plugins: [() => via(upstream)],
    timeouts: { connectMs: 80, drainMs: 0 },
  })
  const pending = nextSession()
  const client = await transport.connect({ destination })
  expect(await ending(client)).toBe('ECONNRESET')
  expect((await (await pending).ended).end?.error?.message).toBe('connect to slow: no answer within 80 ms')
  const accepted = Promise.withResolvers<string>()
  const { dial } = await stage.origin((socket) => void ending(socket).then(accepted.resolve))
  late.resolve(await dial())
  expect(await accepted.promise).toBe('ECONNRESET')
})

test.each([
  ['asked for a tunnel', { host: '198.51.100.1', port: 1080 }, 'tunnel'],
  // Its stream says where it listens.
  ['asked for a stream where its address is not known', undefined, 'connect'],
])('an upstream that needs no stream is %s', async (_, address, expected) => {
  const { dial } = await stage.origin((socket) => socket.pipe(socket))
  const asked: string[] = []
  const answer = (how: string) => {
    asked.push(how)
    return dial()
  }
  const upstream: Upstream = {
    name: 'both',
    ...(address && { address }),
    connect: () => answer('connect'),
    tunnel: async () => asLazy(await answer('tunnel')),
  }
  const { transport } = await stage.start({ plugins: [() => via(upstream)] })
  const client = await transport.connect({ destination })
  client.end('there and back')
  expect(await text(client)).toBe('there and back')
  expect(asked).toEqual([expected])
})

test('an upstream may be any stream, not only a socket', async () => {
  const upstream: Upstream = {
    name: 'memory',
    async connect() {
      const [ours, theirs] = duplexPair()
      theirs.pipe(theirs)
      return ours
    },
  }
  const { transport } = await stage.start({ plugins: [() => via(upstream)] })
  const client = await transport.connect({ destination })
  client.end('looped')
  expect(await text(client)).toBe('looped')
})

test('an upstream that breaks off before it is known to be exempt costs its own connection', async () => {
  const [near, far] = await socketPair()
  const { transport, nextSession } = await stage.start({
    plugins: [() => via({ name: 'broken', connect: async () => near })],
  })
  const exempt = () => {
    far.resetAndDestroy()
    return new Promise((resolve) => near.once('close', resolve))
  }
  Object.assign(transport, { exempt })
  const pending = nextSession()
  const client = await transport.connect({ destination })
  expect(await ending(client)).toBe('ECONNRESET')
  expect((await (await pending).ended).end).toMatchObject({ how: 'reset', by: 'upstream' })
})

test('an upstream that ends and breaks off in one breath leaves nothing open', async () => {
  const upstream: Upstream = {
    name: 'memory',
    async connect() {
      const [ours, theirs] = duplexPair()
      ours.once('end', () => ours.destroy(new Error('cut')))
      theirs.resume().once('data', () => theirs.end('all'))
      return ours
    },
  }
  const { transport, nextSession } = await stage.start({ plugins: [() => via(upstream)] })
  const pending = nextSession()
  const client = await transport.connect({ destination })
  client.on('error', () => {})
  client.write('tell me')
  expect((await (await pending).ended).end).toMatchObject({ how: 'reset', by: 'upstream' })
})

test('an upstream that never says that it is closed holds up neither the end of its session nor ours', async () => {
  const written = Promise.withResolvers<void>()
  const silent = new Duplex({
    emitClose: false,
    read: () => {},
    write: (_chunk, _encoding, done) => {
      written.resolve()
      done()
    },
  })
  const upstream: Upstream = { name: 'silent', connect: async () => silent }
  const { proxy, transport, nextSession } = await stage.start({ plugins: [() => via(upstream)] })
  const pending = nextSession()
  const client = await transport.connect({ destination })
  client.write('hello')
  const session = await pending
  await written.promise
  const ended = ending(client)
  await session.close()
  expect(await ended).toBe('ECONNRESET')
  expect(session.end?.how).toBe('aborted')
  await proxy.close()
})

test.each([
  ['rejects with what has no text', () => Promise.reject(Object.create(null))],
  [
    'throws what has no text',
    () => {
      throw Object.create(null)
    },
  ],
])('an upstream that %s costs its own connection', async (_, connect) => {
  const upstream: Upstream = { name: 'odd', connect }
  const { transport, nextSession } = await stage.start({ plugins: [() => via(upstream)] })
  const pending = nextSession()
  const client = await transport.connect({ destination })
  expect(await ending(client)).toBe('ECONNRESET')
  expect((await (await pending).ended).end?.how).toBe('failed')
})

test('an upstream that answers nothing, and too late, costs its own connection', async () => {
  const late = Promise.withResolvers<Socket>()
  const upstream: Upstream = { name: 'late', connect: () => late.promise }
  const { transport, nextSession } = await stage.start({
    plugins: [() => via(upstream)],
    timeouts: { connectMs: 20 },
  })
  const pending = nextSession()
  const client = await transport.connect({ destination })
  expect(await ending(client)).toBe('ECONNRESET')
  expect((await (await pending).ended).end?.how).toBe('failed')
  // An unhandled rejection would end the process.
  late.resolve(undefined as unknown as Socket)
  await nextTurn()
})

test('what is dropped in order although its program has given up leaves nothing at the socket that stands in for it', async () => {
  const { transport, nextSession } = await stage.start({ plugins: [() => drop({ reset: false })] })
  const gone = new Socket().destroy()
  const pending = nextSession()
  transport.accepted.next({
    socket: gone,
    source: endpoint('127.0.0.1', 1),
    destination: endpoint(destination.address, destination.port),
    interface: 'lo',
    direct: () => Promise.reject(new Error('nobody asks')),
  })
  expect((await (await pending).ended).end?.how).toBe('dropped')
  expect(gone.listenerCount('finish')).toBe(0)
})
