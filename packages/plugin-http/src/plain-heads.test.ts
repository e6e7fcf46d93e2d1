import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { nothingGoesAstray } from '../../../test/local/astray.ts'
import type { LocalServer } from '../../../test/local/server.ts'
import { end, exchange, open, until } from '../test/client.ts'
import { proxyServer, readHead, scripted } from '../test/proxy-server.ts'

nothingGoesAstray()

/** A proxy that answers every connection's first request with a text, and keeps the heads of the requests. */
function answering(text: string, heads: string[] = []): Promise<LocalServer> {
  return scripted(async (socket) => {
    heads.push(await readHead(socket))
    socket.write(Buffer.from(text, 'latin1'))
    socket.on('end', () => socket.end()).resume()
  })
}

// Another connection of the process, which nothing here may touch.
let bystander: Duplex
let elsewhere: LocalServer
beforeEach(async () => {
  elsewhere = await proxyServer({ origin: ({ url }, response) => response.end(url) })
  bystander = await open(elsewhere)
  bystander.write('GET /before HTTP/1.1\r\nHost: a\r\n\r\n')
  await until(bystander, /http:\/\/a\/before/)
})
afterEach(async () => {
  bystander.write('GET /after HTTP/1.1\r\nHost: a\r\n\r\n')
  await until(bystander, /http:\/\/a\/after/)
  bystander.destroy()
  await elsewhere[Symbol.asyncDispose]()
})

describe('a Trailer header', () => {
  const get = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
  const chunks = '2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n'

  test.each([
    ['with a length', get, `200 OK\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nhi`, /\r\n\r\nhi$/],
    [
      'to an HTTP/1.0 client',
      'GET / HTTP/1.0\r\n\r\n',
      `200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}`,
      /\r\n\r\nhi$/,
    ],
    ['with 304', get, '304 Not Modified\r\nTrailer: X-Sum\r\n\r\n', /\r\n\r\n$/],
    [
      'with 304 and chunks',
      get,
      '304 Not Modified\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n',
      /\r\n\r\n$/,
    ],
    ['to HEAD', get.replace('GET', 'HEAD'), '200 OK\r\nTrailer: X-Sum\r\n\r\n', /\r\n\r\n$/],
    [
      'to HEAD, with chunks',
      get.replace('GET', 'HEAD'),
      '200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n',
      /\r\n\r\n$/,
    ],
    [
      'with 204 and chunks',
      get,
      '204 No Content\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n',
      /\r\n\r\n$/,
    ],
  ])('of an answer %s is dropped', async (_, request, answer, expected) => {
    await using proxy = await answering(`HTTP/1.1 ${answer}`)
    const text = await exchange(await open(proxy), request)
    expect(text).toMatch(new RegExp(`^HTTP/1.1 ${answer.slice(0, 3)} `))
    expect(text).toMatch(expected)
    expect(text).not.toMatch(/trailer/i)
  })

  test.each([
    ['GET', 'GET / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\n\r\n'],
    ['POST with a length', 'POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nhi'],
    [
      'POST that waits for a 100',
      'POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi',
    ],
    ['GET of HTTP/1.0', 'GET / HTTP/1.0\r\nTrailer: X-Sum\r\n\r\n'],
  ])('of a %s is dropped', async (_, request) => {
    const heads: string[] = []
    await using proxy = await answering('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi', heads)
    expect(await exchange(await open(proxy), request)).toMatch(/^HTTP\/1.1 200 OK\r\n[^]*\r\n\r\nhi$/)
    expect(heads[0]).toMatch(/ http:\/\/[^]*\r\n\r\n/)
    expect(heads[0]).not.toMatch(/trailer/i)
  })

  test('passes both ways with the chunks and the trailers that it announces', async () => {
    const heads: string[] = []
    const headers = 'Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n'
    await using proxy = await answering(`HTTP/1.1 200 OK\r\n${headers}\r\n${chunks}`, heads)
    const text = await exchange(await open(proxy), `POST / HTTP/1.1\r\nHost: a\r\n${headers}\r\n${chunks}`)
    expect(text).toMatch(/\r\nTrailer: X-Sum\r\n[^]*\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n$/)
    expect(heads[0]).toContain('\r\nTrailer: X-Sum\r\n')
  })
})

describe('the first line of an answer', () => {
  const get = 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'

  test.each([
    'Content-Length: 2\r\n\r\nhi',
    'Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n',
    '\r\n',
  ])('loses control characters in its phrase, before %j', async (rest) => {
    const answer = `HTTP/1.1 200 \x01O\x1b[2JK\x7f\tf\xfcr\x00\r\n${rest}`
    await using proxy = await scripted(async (socket) => {
      await readHead(socket)
      socket.end(Buffer.from(answer, 'latin1'))
    })
    const text = await exchange(await open(proxy), get)
    expect(text).toMatch(/^HTTP\/1.1 200 O\[2JK\tf\xfcr\r\n/)
    if (rest !== '\r\n') expect(text).toContain('hi')
  })

  test.each(['000', '007', '099'])('with %s for a status resets the client', async (status) => {
    for (const rest of [
      '\r\nContent-Length: 2\r\n\r\nhi',
      '\r\n\r\n',
      ' x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n',
    ]) {
      await using proxy = await answering(`HTTP/1.1 ${status}${rest}`)
      const connection = await open(proxy)
      connection.write(get)
      expect(await end(connection)).toMatchObject({
        code: 'E_UPSTREAM',
        message: expect.stringMatching(new RegExp(`the proxy answered ${status}, which is no status$`)),
      })
      await proxy.idle()
    }
  })
})

test('an answer whose encoding has no end but that of its connection ends the client’s, too', async () => {
  await using proxy = await scripted(async (socket) => {
    await readHead(socket)
    socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nzipped')
  })
  const connection = await open(proxy)
  connection.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  connection.resume()
  await Promise.race([once(connection, 'end'), wait(1000).then(() => Promise.reject(new Error('it lasts')))])
})

test('letters beyond ASCII in a header reach the proxy as the bytes that they were', async () => {
  const heads: string[] = []
  await using proxy = await answering('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', heads)
  const request = Buffer.from('GET / HTTP/1.1\r\nHost: a\r\nX-Name: J\xf6\r\n\r\n', 'latin1')
  await exchange(await open(proxy), request)
  expect(heads[0]).toContain('X-Name: J\xf6\r\n')
})
