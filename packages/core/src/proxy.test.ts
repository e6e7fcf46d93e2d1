import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { duplexPair } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import { firstValueFrom, toArray } from 'rxjs'
import { afterEach, expect, test } from 'vitest'
import { endpoint } from './endpoint.ts'
import type { Plugin } from './plugin.ts'
import { type ProxyOptions, TransparentProxy } from './proxy.ts'
import type { Session } from './session.ts'
import { claimed } from './testing/claim.ts'
import { socketPair } from './testing/socket-pair.ts'
import { LocalTransport } from './testing.ts'
import type { Upstream } from './upstream.ts'
import { direct, drop, via } from './verdict.ts'

const destination = { address: '203.0.113.1', port: 443 }

let cleanUp = new AsyncDisposableStack()
afterEach(async () => {
  await cleanUp.disposeAsync()
  cleanUp = new AsyncDisposableStack()
})

/** A server that stands for the destination; `serve` is its behaviour. */
async function origin(serve: (socket: Socket) => void): Promise<Server & { dial: () => Promise<Socket> }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    serve(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanUp.defer(() => void server.close())
  const dial = async () => {
    const { port } = server.address() as { port: number }
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    await once(socket, 'connect')
    return socket
  }
  return Object.assign(server, { dial })
}

async function start(
  options: Partial<ProxyOptions>,
  dial?: () => Promise<Socket>,
): Promise<{ proxy: TransparentProxy; transport: LocalTransport; nextSession: () => Promise<Session> }> {
  const transport = new LocalTransport(dial === undefined ? {} : { direct: dial })
  const proxy = await TransparentProxy.open({ timeouts: { drainMs: 0 }, ...options, transport })
  cleanUp.use(proxy)
  return { proxy, transport, nextSession: () => firstValueFrom(proxy.sessions) }
}

/** How a socket ended, as its program sees it. */
async function ending(socket: Socket): Promise<string> {
  socket.resume()
  const { promise, resolve } = Promise.withResolvers<string>()
  socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'))
  socket.once('end', () => resolve('end'))
  return promise
}

const echo = (socket: Socket) => socket.pipe(socket)

test('without a plugin a connection goes to its destination, and the session tells how it went', async () => {
  const { dial } = await origin(echo)
  const { transport, nextSession } = await start({}, dial)
  const pending = nextSession()
  const client = await transport.connect({ destination })
  client.end('hello')
  expect(await text(client)).toBe('hello')
  const session = await (await pending).ended
  expect(session).toMatchObject({
    plugin: undefined,
    verdict: { kind: 'direct' },
    bytes: { sent: 5, received: 5 },
    end: { how: 'closed' },
  })
  expect(session.connection.destination).toEqual({ ...destination, family: 4 })
})

test('the first plugin that answers decides, under its name; undefined asks the next', async () => {
  const { dial } = await origin(echo)
  const asked: string[] = []
  const silent: Plugin = function silent() {
    asked.push('silent')
    return undefined
  }
  const deciding: Plugin = async function deciding() {
    asked.push('deciding')
    return direct()
  }
  const never: Plugin = function never() {
    asked.push('never')
    return drop()
  }
  const { transport, nextSession } = await start({ plugins: [silent, deciding, never] }, dial)
  const pending = nextSession()
  const client = await transport.connect({ destination })
  client.end('x')
  expect(await text(client)).toBe('x')
  expect((await pending).plugin).toBe('deciding')
  expect(asked).toEqual(['silent', 'deciding'])
})

test('drop resets the client, or closes in order when asked to', async () => {
  const { transport } = await start({
    plugins: [({ destination: { port } }) => drop({ reset: port === 25 })],
  })
  const reset = await transport.connect({ destination: { ...destination, port: 25 } })
  expect(await ending(reset)).toBe('ECONNRESET')
  const closed = await transport.connect({ destination })
  expect(await ending(closed)).toBe('end')
})

test.each<[string, Plugin, string]>([
  [
    'throws',
    () => {
      throw new Error('broken')
    },
    'failed: broken',
  ],
  ['rejects', () => Promise.reject(new Error('broken')), 'failed: broken'],
  ['answers nonsense', () => ({ kind: 'maybe' }) as never, 'returned something that is no verdict'],
  ['answers a verdict by hand without an upstream', () => ({ kind: 'via' }) as never, 'that is no verdict'],
  [
    'answers a verdict by hand with a transform that is none',
    () => ({ kind: 'direct', transform: 'gzip' }) as never,
    'that is no verdict',
  ],
  ['goes via nothing', () => via(undefined as never), 'failed: via: no upstream is given'],
  ['never answers', () => new Promise(() => {}), 'gave no verdict within 100 ms'],
])(
  'a plugin that %s costs its own connection, which is reset and never goes direct',
  async (_, plugin, message) => {
    let reached = 0
    const { dial } = await origin((socket) => {
      reached++
      echo(socket)
    })
    const { proxy, transport } = await start(
      {
        plugins: [(connection) => (connection.destination.port === 1 ? plugin(connection) : undefined)],
        timeouts: { decisionMs: 100, drainMs: 0 },
      },
      dial,
    )
    const warning = firstValueFrom(proxy.warnings)
    const victim = await transport.connect({ destination: { ...destination, port: 1 } })
    expect(await ending(victim)).toBe('ECONNRESET')
    expect(await warning).toContain(message)
    expect(reached).toBe(0)
    const other = await transport.connect({ destination })
    other.end('fine')
    expect(await text(other)).toBe('fine')
  },
)

test('an upstream that fails gives the client a reset at once, never a direct connection', async () => {
  let reached = 0
  const { dial } = await origin(() => reached++)
  const upstream: Upstream = { name: 'broken', connect: () => Promise.reject(new Error('no way')) }
  const { transport, nextSession } = await start({ plugins: [() => via(upstream)] }, dial)
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
  const { transport, nextSession } = await start({
    plugins: [() => via(upstream)],
    timeouts: { connectMs: 80, drainMs: 0 },
  })
  const pending = nextSession()
  const client = await transport.connect({ destination })
  expect(await ending(client)).toBe('ECONNRESET')
  expect((await (await pending).ended).end?.error?.message).toBe('connect to slow: no answer within 80 ms')
  const accepted = Promise.withResolvers<string>()
  const { dial } = await origin((socket) => void ending(socket).then(accepted.resolve))
  late.resolve(await dial())
  expect(await accepted.promise).toBe('ECONNRESET')
})

test('a half-closed connection still carries the other direction', async () => {
  const { dial } = await origin(async (socket) => {
    const question = await text(socket)
    setTimeout(() => socket.end(`answer to ${question}`), 50)
  })
  const { transport } = await start({}, dial)
  const client = await transport.connect({ destination })
  client.end('question')
  expect(await text(client)).toBe('answer to question')
})

test('a server that ends first still gets what the client sends', async () => {
  const received = Promise.withResolvers<string>()
  const { dial } = await origin((socket) => {
    socket.end('bye')
    void text(socket).then(received.resolve)
  })
  const { transport } = await start({}, dial)
  const client = await transport.connect({ destination })
  expect(await text(client)).toBe('bye')
  client.end('still here')
  expect(await received.promise).toBe('still here')
})

test('a reset travels on as a reset, in both directions', async () => {
  const seen = Promise.withResolvers<string>()
  const { dial } = await origin((socket) => {
    socket.once('data', (data) => {
      if (data.toString() === 'reset me') socket.resetAndDestroy()
      else void ending(socket).then(seen.resolve)
    })
  })
  const { transport } = await start({}, dial)
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
  const { dial } = await origin((socket) => {
    socket.pause()
    held.resolve(socket)
  })
  const { proxy, transport, nextSession } = await start({}, dial)
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
  const { dial } = await origin((socket) => socket.resume())
  const { transport, nextSession } = await start(
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

test('an upstream may be any stream, not only a socket', async () => {
  const upstream: Upstream = {
    name: 'memory',
    async connect() {
      const [ours, theirs] = duplexPair()
      theirs.pipe(theirs)
      return ours
    },
  }
  const { transport } = await start({ plugins: [() => via(upstream)] })
  const client = await transport.connect({ destination })
  client.end('looped')
  expect(await text(client)).toBe('looped')
})

test('an upstream that breaks off before it is known to be exempt costs its own connection', async () => {
  const [near, far] = await socketPair()
  const { transport, nextSession } = await start({
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
  const { transport, nextSession } = await start({ plugins: [() => via(upstream)] })
  const pending = nextSession()
  const client = await transport.connect({ destination })
  client.on('error', () => {})
  client.write('tell me')
  expect((await (await pending).ended).end).toMatchObject({ how: 'reset', by: 'upstream' })
})

test('a connection nobody settles is reset at its deadline', async () => {
  const transport = new LocalTransport()
  const { Interception } = await import('./interception.ts')
  await using interception = new Interception(transport, { decisionMs: 50 })
  const warning = firstValueFrom(interception.warnings)
  const client = await transport.connect({ destination })
  expect(await ending(client)).toBe('ECONNRESET')
  expect(await warning).toBe('nobody decided 203.0.113.1:443 within 50 ms: reset')
})

test('a taken socket belongs to the caller, and settling it again is an error', async () => {
  const transport = new LocalTransport()
  const { Interception } = await import('./interception.ts')
  await using interception = new Interception(transport, { decisionMs: 50 })
  const pending = firstValueFrom(interception.connections)
  const client = await transport.connect({ destination })
  const connection = await pending
  const socket = connection.take()
  await expect(connection.settle(direct())).rejects.toMatchObject({ code: 'E_STATE' })
  await new Promise((resolve) => setTimeout(resolve, 100))
  socket.end('mine')
  expect(await text(client)).toBe('mine')
})

test('closing lets sessions finish until the deadline, resets the rest, and completes the streams', async () => {
  const { dial } = await origin(echo)
  const { proxy, transport, nextSession } = await start({}, dial)
  const all = firstValueFrom(proxy.sessions.pipe(toArray()))
  const pending = nextSession()
  const client = await transport.connect({ destination })
  client.write('x')
  await once(client, 'data')
  const ended = ending(client)
  const started = performance.now()
  await proxy.close({ drainMs: 100 })
  expect(performance.now() - started).toBeGreaterThan(95)
  expect((await pending).end).toEqual({ how: 'aborted' })
  expect(await ended).toBe('ECONNRESET')
  expect(await all).toHaveLength(1)
})

test.each<[string, Plugin | undefined]>([
  ['as soon as it is told', undefined],
  [
    'by the plugin that decided',
    function closing({ session }) {
      void session.then((it) => it.close())
      return direct()
    },
  ],
])('a session that is closed %s ends, also where its destination is reached at once', async (_, plugin) => {
  const { proxy, transport, nextSession } = await start(plugin === undefined ? {} : { plugins: [plugin] })
  if (plugin === undefined) proxy.sessions.subscribe((session) => void session.close())
  const pending = nextSession()
  const [[program, socket], [near, far]] = await Promise.all([socketPair(), socketPair()])
  const source = endpoint('192.0.2.1', 1)
  transport.accepted.next({ ...claimed({ destination }), socket, source, direct: () => near })
  expect(await Promise.all([ending(program), ending(far)])).toEqual(['ECONNRESET', 'ECONNRESET'])
  expect((await (await pending).ended).end).toEqual({ how: 'aborted' })
})

test('closing waits for what is not decided yet, and takes nothing once that is over', async () => {
  const { dial } = await origin(echo)
  const { promise: asked, resolve: ask } = Promise.withResolvers<void>()
  const { promise: answer, resolve: decide } = Promise.withResolvers<ReturnType<typeof direct>>()
  const slow: Plugin = () => {
    ask()
    return answer
  }
  const { proxy, transport, nextSession } = await start({ plugins: [slow] }, dial)
  const sessions: Session[] = []
  proxy.sessions.subscribe((session) => sessions.push(session))
  const pending = nextSession()
  const client = await transport.connect({ destination })
  await asked
  // Late: after the last session's end.
  const late = [await socketPair(), await socketPair()] as const
  const received = text(client)
  const close = transport.close.bind(transport)
  transport.close = async () => {
    await received
    for (const [, socket] of late)
      transport.accepted.next({
        ...claimed({ destination }),
        socket,
        source: endpoint('192.0.2.1', 1),
        direct: dial,
      })
    await close()
  }
  const closing = proxy.close({ drainMs: 5000 })
  decide(direct())
  client.end('hello')
  expect(await received).toBe('hello')
  await closing
  expect((await pending).end).toEqual({ how: 'closed' })
  expect(sessions).toHaveLength(1)
  for (const socket of late.flat()) socket.destroy()
})

test('plugins are replaced: those that left are not asked again, and clean up with the others', async () => {
  const closed: string[] = []
  const named = (name: string, plugin: Plugin) =>
    Object.assign(Object.defineProperty(plugin, 'name', { value: name }), {
      close: () => void closed.push(name),
    })
  const { dial } = await origin(echo)
  const [first, second] = [named('first', () => direct()), named('second', () => undefined)]
  const { proxy, transport, nextSession } = await start({ plugins: [first] }, dial)
  const before = nextSession()
  const held = await transport.connect({ destination })
  await before

  await proxy.replace({ plugins: [second], default: drop() })
  const after = nextSession()
  const refused = await transport.connect({ destination })
  expect(await ending(refused)).toBe('ECONNRESET')
  expect(await after).toMatchObject({ verdict: { kind: 'drop' } })
  held.end('still here')
  expect(await text(held)).toBe('still here')
  expect(closed).toEqual([])
  await proxy.close()
  expect(closed).toEqual(['first', 'second'])
})

test('a connection whose rule asks for a plugin that was replaced meanwhile is reset, never direct', async () => {
  const { dial } = await origin(echo)
  const { transport, nextSession } = await start({ plugins: [] }, dial)
  const next = nextSession()
  const program = await transport.connect({ destination, via: 'gone' })
  expect(await ending(program)).toBe('ECONNRESET')
  expect((await next).end?.error?.message).toContain('plugin gone')
})

test.each([
  [() => undefined, 'plugins is no list (write'],
  ['socks', 'plugins is no list (write'],
  [[() => undefined, 5], 'plugins[1] is no plugin (a plugin is'],
  [[undefined], 'plugins[0] is no plugin (a plugin is'],
])('plugins that are none are refused: %j', async (plugins, message) => {
  const refusal = { code: 'E_OPTION', message: expect.stringContaining(message) }
  await expect(start({ plugins: plugins as never })).rejects.toMatchObject(refusal)
  const { proxy } = await start({})
  await expect(proxy.replace({ plugins: plugins as never })).rejects.toMatchObject(refusal)
})
