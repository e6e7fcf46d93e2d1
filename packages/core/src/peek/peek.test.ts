import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Socket } from 'node:net'
import { buffer, text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { firstValueFrom } from 'rxjs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Connection } from '../connection.ts'
import { Interception } from '../interception.ts'
import { LocalTransport } from '../testing.ts'
import { direct, via } from '../verdict.ts'

const destination = { address: '203.0.113.1', port: 443 }
const request = 'GET / HTTP/1.1\r\nHost: example.org\r\n\r\n'

let transport: LocalTransport
let interception: Interception
beforeEach(async () => {
  transport = new LocalTransport()
  interception = new Interception(transport, { drainMs: 0 })
})
afterEach(() => interception.close())

async function connect(): Promise<{ program: Socket; connection: Connection }> {
  const next = firstValueFrom(interception.connections)
  const program = await transport.connect({ destination })
  program.on('error', () => {})
  return { program, connection: await next }
}

/** What an upstream that answers each byte with itself got, once it is connected. */
const echo = via({
  name: 'echo',
  connect: async () => {
    const { duplexPair } = await import('node:stream')
    const [near, far] = duplexPair()
    far.pipe(far)
    return near
  },
})

test('what was peeked at, at whatever pace it came, is carried whole', async () => {
  const { program, connection } = await connect()
  const peeked = connection.peek()
  for (const byte of request) {
    program.write(byte)
    await sleep(1)
  }
  expect(await peeked).toEqual({ protocol: 'http', name: 'example.org' })
  program.write('more')
  await sleep(5)
  void connection.settle(echo)
  program.end('end')
  expect(await text(program)).toBe(`${request}moreend`)
})

test('a program that waits for the server to speak is let go at the deadline', async () => {
  const { program, connection } = await connect()
  const start = performance.now()
  expect(await connection.peek({ deadlineMs: 50 })).toEqual({ protocol: undefined })
  expect(performance.now() - start).toBeGreaterThan(45)
  void connection.settle(echo)
  program.end('late')
  expect(await text(program)).toBe('late')
})

test('what is known at the deadline is told', async () => {
  const { program, connection } = await connect()
  program.write('GET / HTTP/1.1\r\nHost: exam')
  expect(await connection.peek({ deadlineMs: 50 })).toEqual({ protocol: 'http' })
})

test('another protocol is not waited for', async () => {
  const { program, connection } = await connect()
  program.write('*1\r\n')
  expect(await connection.peek({ deadlineMs: 60_000 })).toEqual({ protocol: undefined })
})

test('16 KB of a request are enough', async () => {
  const { program, connection } = await connect()
  const long = `GET / HTTP/1.1\r\nCookie: ${'x'.repeat(20_000)}`
  program.write(long)
  expect(await connection.peek({ deadlineMs: 60_000 })).toEqual({ protocol: 'http' })
  void connection.settle(echo)
  program.end()
  expect((await buffer(program)).length).toBe(long.length)
})

test('no more than 16 KB are looked at, however much has arrived', async () => {
  const { program, connection } = await connect()
  program.write(`GET / HTTP/1.1\r\nHost: example.org\r\nCookie: ${'x'.repeat(20_000)}\r\n\r\n`)
  await sleep(50)
  expect(await connection.peek({ deadlineMs: 60_000 })).toEqual({ protocol: 'http' })
})

test('asked twice it gives one answer, and none once the connection is settled', async () => {
  const { program, connection } = await connect()
  program.write(request)
  const [one, two] = await Promise.all([connection.peek(), connection.peek({ deadlineMs: 1 })])
  expect(two).toBe(one)
  void connection.settle(echo)
  expect(await connection.peek()).toBe(one)
  const other = (await connect()).connection
  void other.settle(direct())
  await expect(other.peek()).rejects.toMatchObject({ code: 'E_STATE' })
  await expect(other.peek({ deadlineMs: Number.NaN })).rejects.toMatchObject({ code: 'E_OPTION' })
})

test('a verdict in the midst of it ends it, and no byte is lost', async () => {
  const { program, connection } = await connect()
  program.write('GET /')
  const peeked = connection.peek({ deadlineMs: 60_000 })
  await sleep(20)
  void connection.settle(echo)
  expect(await peeked).toEqual({ protocol: undefined })
  program.end(' and the rest')
  expect(await text(program)).toBe('GET / and the rest')
})

test('a program that has ended its direction without a word still gets what the server says', async () => {
  const { program, connection } = await connect()
  program.end()
  expect(await connection.peek({ deadlineMs: 60_000 })).toEqual({ protocol: undefined })
  const session = await connection.settle(echo)
  program.resume()
  expect((await session.ended).end).toEqual({ how: 'closed' })
})

test('a program that has ended its direction after a few words is answered', async () => {
  const { program, connection } = await connect()
  program.end('GET')
  expect(await connection.peek({ deadlineMs: 50 })).toEqual({ protocol: undefined })
  const session = await connection.settle(echo)
  expect(await text(program)).toBe('GET')
  expect((await session.ended).end).toEqual({ how: 'closed' })
})

test('a program that resets is nothing to wait for', async () => {
  const { program, connection } = await connect()
  program.write('GET')
  const peeked = connection.peek({ deadlineMs: 60_000 })
  await sleep(20)
  program.resetAndDestroy()
  expect(await peeked).toEqual({ protocol: undefined })
  const session = await connection.settle(echo)
  expect((await session.ended).end).toMatchObject({ how: 'reset', by: 'client' })
  expect(await connection.peek()).toEqual({ protocol: undefined })
})

test('a server of this process gets the socket with all that was peeked at', async () => {
  const server = createServer((incoming, response) => response.end(incoming.headers.host))
  const { program, connection } = await connect()
  program.write(request)
  expect(await connection.peek()).toMatchObject({ name: 'example.org' })
  const socket = connection.take()
  server.emit('connection', socket.resume())
  const [answer] = (await once(program, 'data')) as [Buffer]
  expect(String(answer)).toMatch(/^HTTP\/1\.1 200 [^]*example\.org/)
  program.destroy()
})
