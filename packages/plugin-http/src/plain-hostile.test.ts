import { once } from 'node:events'
import type { Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { open } from '../test/client.ts'
import { readHead, scripted } from '../test/proxy-server.ts'

const astray = vi.fn()
beforeEach(() => {
  process.on('unhandledRejection', astray).on('uncaughtException', astray)
})
afterEach(() => {
  process.off('unhandledRejection', astray).off('uncaughtException', astray)
})

const noise = fc.string({
  unit: fc.constantFrom(...Array.from(' \t\r\n\x00\x01\x1b\x7f\x80\xff:;,=aZ09')),
  maxLength: 6,
})

/** Mostly one of these, for what is refused at once tests little. */
const mostly = (...texts: string[]) => fc.oneof({ weight: 40, arbitrary: fc.constantFrom(...texts) }, noise)

// Names that mean something to node, to http-proxy or to objects, and values that do not go together.
const name = mostly(
  ...'Trailer Trailer Connection Upgrade Expect TE Host Date Keep-Alive Proxy-Connection Set-Cookie'.split(
    ' ',
  ),
  ...'Content-Length Transfer-Encoding X-Trailer __proto__ constructor toString hasOwnProperty'.split(' '),
)
const value = mostly(
  ...'X-Sum x 0 2 99 chunked close keep-alive upgrade h2c websocket 100-continue trailers é'.split(' '),
  ...['gzip, chunked', 'chunked, gzip', 'close, trailer', 'content-length, transfer-encoding', ''],
)
const header = fc.oneof(
  fc.constantFrom(
    'Transfer-Encoding: chunked\r\n',
    'Content-Length: 2\r\n',
    'Trailer: X-Sum\r\n',
    'Connection: Upgrade\r\nUpgrade: h2c\r\n',
    'Connection: Upgrade\r\nUpgrade: websocket\r\n',
    'Expect: 100-continue\r\n',
  ),
  fc.tuple(name, value).map(([key, text]) => `${key}: ${text}\r\n`),
)
// What is not announced begins the next message, and mostly ends everything before it was answered.
const body = mostly(
  ...Array<string>(20).fill(''),
  ...['', 'hi', '0\r\n\r\n', '2\r\nhi\r\n0\r\n\r\n', '2\r\nhi\r\n0\r\nX-Sum: \xe9\r\n\r\n'],
  ...['2\r\nhi', '0\r\n__proto__: 1\r\nTrailer: x\r\nContent-Length: 1\r\n\r\n'],
)
const message = (line: fc.Arbitrary<string>) =>
  fc
    .tuple(line, fc.array(header, { maxLength: 4 }), body)
    .map(([first, headers, rest]) => `${first}\r\n${headers.join('')}\r\n${rest}`)
const request = message(
  fc
    .tuple(
      mostly(...'GET GET POST HEAD PUT DELETE OPTIONS CONNECT PROPFIND TRACE'.split(' ')),
      mostly('/', '/', '*', 'http://a/', 'a:1'),
      mostly('1.1', '1.1', '1.0', '0.9', '2.0'),
    )
    .map(([method, target, version]) => `${method} ${target} HTTP/${version}`),
)
const answer = message(
  fc
    .tuple(
      mostly('1.1', '1.1', '1.0'),
      mostly(...'200 200 200 204 304 100 101 103 199 205 407 417 426 000 099 999'.split(' ')),
      mostly('OK', '', 'O\x01K', '\x7f', 'Ã©'),
    )
    .map(([version, status, phrase]) => `HTTP/${version} ${status} ${phrase}`),
)
const ending = fc.constantFrom('stays', 'ends', 'resets', 'goes on')

test('no head from either side raises what nobody catches', async () => {
  let act: (socket: Socket) => Promise<void>
  await using proxy = await scripted((socket) => act(socket))
  const exchange = fc.asyncProperty(
    fc.array(request, { minLength: 1, maxLength: 3 }).map((all) => Buffer.from(all.join(''), 'latin1')),
    fc.nat(400),
    fc.boolean(),
    fc.array(answer, { maxLength: 3 }).map((all) => Buffer.from(all.join(''), 'latin1')),
    ending,
    async (asked, split, half, answered, how) => {
      act = async (socket) => {
        socket.on('end', () => socket.end())
        await readHead(socket)
        socket.write(answered)
        if (how === 'resets') socket.resetAndDestroy()
        if (how === 'ends') socket.end()
        if (how === 'goes on') socket.on('data', () => socket.write(answered))
        socket.resume()
      }
      const connection = await open(proxy, { timeoutMs: 50 }, 'http://user:password@')
      connection.resume()
      connection.write(asked.subarray(0, split))
      connection.write(asked.subarray(split))
      if (half) connection.end()
      await Promise.race([once(connection, 'close').catch(() => {}), wait(8)])
      connection.destroy()
      await proxy.idle()
      expect(astray.mock.calls).toEqual([])
    },
  )
  await fc.assert(exchange, { numRuns: 400 })
})
