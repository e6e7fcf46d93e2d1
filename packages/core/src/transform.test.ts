import { once } from 'node:events'
import type { Socket } from 'node:net'
import { Duplex, duplexPair, PassThrough, Transform } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import { createGunzip, createGzip } from 'node:zlib'
import { firstValueFrom } from 'rxjs'
import { afterEach, expect, test } from 'vitest'
import { TransparentProxy } from './proxy.ts'
import type { Session } from './session.ts'
import { LocalTransport } from './testing.ts'
import { type Transforms, via } from './verdict.ts'

const destination = { address: '203.0.113.1', port: 443 }

let cleanUp = new AsyncDisposableStack()
afterEach(async () => {
  await cleanUp.disposeAsync()
  cleanUp = new AsyncDisposableStack()
})

/** A connection through `transform` to a server that does what `serve` does. */
async function through(
  transform: () => Transforms,
  serve: (socket: Duplex) => void = (socket) => void socket.pipe(socket),
): Promise<{ program: Socket; session: Promise<Session>; server: Duplex }> {
  const transport = new LocalTransport()
  const [near, server] = duplexPair()
  server.on('error', () => {})
  const upstream = { name: 'server', connect: () => (serve(server), Promise.resolve(near)) }
  const proxy = cleanUp.use(
    await TransparentProxy.open({
      transport,
      plugins: [() => via(upstream, { transform })],
      timeouts: { drainMs: 0 },
    }),
  )
  const session = firstValueFrom(proxy.sessions)
  const program = await transport.connect({ destination })
  program.on('error', () => {})
  return { program, session, server }
}

const upperCase = () =>
  new Transform({ transform: (chunk, _, done) => done(null, String(chunk).toUpperCase()) })

test('bytes are changed in the direction that a stream is given for', async () => {
  const { program, session } = await through(() => ({ received: upperCase() }))
  program.end('hello')
  expect(await text(program)).toBe('HELLO')
  expect(await (await session).ended).toMatchObject({
    end: { how: 'closed' },
    bytes: { sent: 5, received: 5 },
    carried: 'relay',
    notSpliced: 'a plugin reads the bytes',
  })
})

test('a stream may keep bytes until its end, and give more or fewer than it got', async () => {
  const { program } = await through(() => ({ sent: createGzip(), received: createGunzip() }))
  const bytes = Buffer.alloc(3_000_000, 'gzip me')
  program.end(bytes)
  expect((await buffer(program)).equals(bytes)).toBe(true)
})

test('any Duplex serves, such as one of an async generator', async () => {
  const lines = async function* (source: AsyncIterable<Buffer>) {
    for await (const chunk of source) yield `<${String(chunk)}>`
  }
  const { program } = await through(() => ({ sent: Duplex.from(lines) }))
  program.end('hello')
  expect(await text(program)).toBe('<hello>')
})

test('each direction ends on its own', async () => {
  const { program } = await through(
    () => ({ sent: new PassThrough(), received: new PassThrough() }),
    async (server) => {
      const question = await text(server)
      setTimeout(() => server.end(`answer to ${question}`), 30)
    },
  )
  program.end('question')
  expect(await text(program)).toBe('answer to question')
})

test('a server that does not read stalls the program', async () => {
  const { program } = await through(
    () => ({ sent: new PassThrough() }),
    () => {},
  )
  let written = 0
  const chunk = Buffer.alloc(100_000)
  while (written < 100_000_000) {
    written += chunk.length
    if (
      !program.write(chunk) &&
      !(await Promise.race([once(program, 'drain'), new Promise((go) => setTimeout(go, 300))]))
    )
      break
  }
  expect(written).toBeLessThan(50_000_000)
})

test.each<[string, () => Transforms, string]>([
  [
    'fails',
    () => ({ sent: new Transform({ transform: (_, __, done) => done(new Error('no such thing')) }) }),
    'a transform failed: no such thing',
  ],
  [
    'closes early',
    () => ({
      sent: new Transform({
        transform() {
          this.destroy()
        },
      }),
    }),
    'a transform failed: it closed early',
  ],
  [
    'cannot be made',
    () => {
      throw new Error('out of ideas')
    },
    'out of ideas',
  ],
  // As a plugin in JavaScript may: nothing of it may pass unchanged.
  [
    'gives what is no stream',
    () => ({ sent: 'gzip' as never }),
    'transform: it returned something that is no pair of streams',
  ],
  [
    'gives a promise',
    (async () => ({ sent: createGzip() })) as never,
    'transform: it returned something that is no pair of streams',
  ],
])('a transform that %s resets both sides', async (_, transform, message) => {
  const { program, session, server } = await through(transform)
  const closed = once(server, 'close')
  program.write('x')
  const [error] = (await once(program, 'error')) as [NodeJS.ErrnoException]
  expect(error.code).toBe('ECONNRESET')
  await closed
  expect((await (await session).ended).end).toMatchObject({
    how: 'failed',
    error: { message: expect.stringMatching(message) },
  })
})

test('streams are destroyed with the connection', async () => {
  const sent = new PassThrough()
  const { program, session } = await through(() => ({ sent }))
  program.write('x')
  await once(program, 'data')
  program.resetAndDestroy()
  expect((await (await session).ended).end).toMatchObject({ how: 'reset', by: 'client' })
  expect(sent.destroyed).toBe(true)
})

test('what is no function makes no verdict', async () => {
  const { program, session } = await through('gzip' as never)
  await once(program.resume(), 'error')
  expect(await session).toMatchObject({ verdict: { kind: 'drop' } })
})
