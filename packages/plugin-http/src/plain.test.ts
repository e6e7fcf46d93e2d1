import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { buffer } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { nothingGoesAstray } from '../../../test/local/astray.ts'
import { answer, ask, end, exchange, open, until } from '../test/client.ts'
import { certificate, proxyServer, readHead, scripted } from '../test/proxy-server.ts'

nothingGoesAstray()

describe('plain HTTP', () => {
  test('reaches the proxy in absolute form, with its body and headers as they were', async () => {
    const log: string[] = []
    await using proxy = await proxyServer({
      log,
      origin: (incoming, response) => {
        response.writeHead(200, 'Fine', 'X-One 1 Set-Cookie a=1 Set-Cookie b=2'.split(' '))
        incoming.pipe(response)
      },
    })
    const connection = await open(proxy)
    const text = await exchange(
      connection,
      'POST /a//b/../c?u=http://x//y HTTP/1.1\r\nHost: example.com:80\r\nX-MiXed: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody',
    )
    expect(log).toEqual([
      'POST http://example.com/a//b/../c?u=http://x//y\nHost: example.com\nX-MiXed: 1\nContent-Length: 4\nConnection: keep-alive',
    ])
    expect(text).toMatch(/^HTTP\/1.1 200 Fine\r\nX-One: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n/)
    expect(text).toMatch(/\r\n\r\n4\r\nbody\r\n0\r\n\r\n$/)
    await proxy.idle()
  })

  test('carries credentials to the proxy, and none of the client’s', async () => {
    const log: string[] = []
    await using proxy = await proxyServer({ log, origin: (_, response) => response.end() })
    const connection = await open(proxy, {}, 'http://jo:p%40ss@')
    await exchange(
      connection,
      'GET / HTTP/1.1\r\nHost: a\r\nProxy-Authorization: x\r\nConnection: close\r\n\r\n',
    )
    expect(log[0]?.match(/proxy-authorization.*/gi)).toEqual([
      `Proxy-Authorization: Basic ${Buffer.from('jo:p@ss').toString('base64')}`,
    ])
  })

  test('goes to an https proxy over TLS', async () => {
    const { key, cert } = certificate()
    await using proxy = await proxyServer({
      tls: { key, cert },
      origin: (_, response) => response.end('secure'),
    })
    const trusting = await open(proxy, { tls: { ca: cert } }, 'https://')
    expect(String((await answer(ask(trusting).end())).body)).toBe('secure')
    const wary = await open(proxy, {}, 'https://')
    wary.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    expect(await end(wary)).toMatchObject({
      code: 'E_UPSTREAM',
      message: expect.stringMatching(/self-signed/),
    })
  })

  test('names the destination instead of the host when the policy says so', async () => {
    const log: string[] = []
    await using proxy = await proxyServer({ log, origin: (_, response) => response.end() })
    await answer(ask(await open(proxy, { authority: 'destination' })).end())
    expect(log[0]).toMatch(/^GET http:\/\/93.184.216.34\/\nHost: 93.184.216.34\n/)
  })

  test('streams large bodies both ways, chunked or not', async () => {
    await using proxy = await proxyServer({ origin: (incoming, response) => void incoming.pipe(response) })
    const body = randomBytes(8 << 20)
    for (const headers of [{ 'Content-Length': body.length }, { 'Transfer-Encoding': 'chunked' }]) {
      const { body: echoed } = await answer(ask(await open(proxy), { method: 'PUT', headers }).end(body))
      const digests = [body, echoed].map((bytes) => createHash('sha256').update(bytes).digest('hex'))
      expect(digests[1]).toBe(digests[0])
    }
  })

  test('holds an upload back while nobody reads it', async () => {
    await using proxy = await proxyServer({ origin: () => {} })
    const connection = await open(proxy)
    connection.write('PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n')
    let taken = 0
    const chunk = Buffer.alloc(65_536)
    do connection.write(chunk, () => (taken += chunk.length))
    while (
      !connection.writableNeedDrain ||
      (await Promise.race([once(connection, 'drain'), wait(200, false)]))
    )
    expect(taken).toBeLessThan(20_000_000)
    connection.destroy()
  })

  test('keeps the connection, and the one to the proxy, between requests', async () => {
    const log: string[] = []
    await using proxy = await proxyServer({ log, origin: ({ url }, response) => response.end(url) })
    const connection = await open(proxy)
    for (const host of ['one.example', 'two.example']) {
      connection.write(`GET /x HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
      await until(connection, new RegExp(`connection: keep-alive[^]*http://${host}/x`, 'i'))
    }
    expect(proxy.count).toBe(1)
    connection.destroy()
    await proxy.idle()
  })

  test('uses a new connection when the proxy has closed the old one in between', async () => {
    await using proxy = await scripted(async (socket) => {
      await readHead(socket)
      socket.write('HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nonce')
      await wait(10)
      socket.end()
    })
    const connection = await open(proxy)
    for (let round = 1; round <= 3; round++) {
      connection.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
      await until(connection, /once/)
      await wait(30)
      expect(proxy.count).toBe(round)
    }
    connection.destroy()
    await proxy.idle()
  })

  test('answers pipelined requests in order, and forwards them in order', async () => {
    const log: string[] = []
    await using proxy = await proxyServer({
      log,
      origin: async ({ url = '' }, response) => {
        await wait(url.endsWith('1') ? 30 : 0)
        log.push(`answer ${url}`)
        response.end(url.slice(-1))
      },
    })
    const requests = [1, 2, 3].map(
      (n) => `GET /${n} HTTP/1.1\r\nHost: a\r\n${n === 3 ? 'Connection: close\r\n' : ''}\r\n`,
    )
    const text = await exchange(await open(proxy), requests.join(''))
    expect(text.match(/(?<=\r\n\r\n)\d(?=HTTP|$)/g)).toEqual(['1', '2', '3'])
    expect(log.map((line) => line.split('\n')[0]?.replace('http://a', ''))).toEqual(
      [1, 2, 3].flatMap((n) => [`GET /${n}`, `answer /${n}`]),
    )
  })

  test('passes Expect: 100-continue on and the answer back', async () => {
    await using proxy = await proxyServer({
      origin: async (incoming, response) => {
        await wait(20)
        response.writeContinue()
        response.end(await buffer(incoming))
      },
    })
    const toServer = ask(await open(proxy), { method: 'POST', headers: { Expect: '100-continue' } })
    toServer.flushHeaders()
    await once(toServer, 'continue')
    expect(String((await answer(toServer.end('after'))).body)).toBe('after')
  })

  test('passes a refusal of Expect: 100-continue back', async () => {
    await using proxy = await proxyServer({ origin: (_, response) => response.writeHead(417).end() })
    const toServer = ask(await open(proxy), { method: 'POST', headers: { Expect: '100-continue' } })
    toServer.flushHeaders()
    expect((await answer(toServer)).response.statusCode).toBe(417)
    toServer.destroy()
    await proxy.idle()
  })

  test.each([
    ['HEAD', 200, { 'Content-Length': '5' }],
    ['GET', 204, {}],
    ['GET', 304, { ETag: '"x"' }],
  ])('leaves the answer to %s with %i without a body', async (method, status, headers) => {
    await using proxy = await proxyServer({
      origin: (_, response) => response.writeHead(status, headers).end(),
    })
    const text = await exchange(
      await open(proxy),
      `${method} / HTTP/1.1\r\nHost: a\r\n\r\n${method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`,
    )
    const heads = text.split('\r\n\r\n')
    expect(heads).toHaveLength(3)
    expect(heads[2]).toBe('')
    for (const head of heads.slice(0, 2)) {
      expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
      for (const [name, value] of Object.entries(headers)) expect(head).toContain(`${name}: ${value}`)
    }
  })

  test('keeps the body of a chunked DELETE a body, and adds none to a bare one, nor to a POST', async () => {
    const log: string[] = []
    await using proxy = await proxyServer({
      log,
      origin: async (incoming, response) => response.end(await buffer(incoming)),
    })
    const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n'
    const chunked = ask(await open(proxy), { method: 'DELETE', headers: { 'Transfer-Encoding': 'chunked' } })
    expect(String((await answer(chunked.end(smuggled))).body)).toBe(smuggled)
    await answer(ask(await open(proxy), { method: 'DELETE' }).end())
    await exchange(await open(proxy), 'POST / HTTP/1.1\r\nHost: a\r\n\r\n')
    expect(log.map((entry) => entry.replaceAll('\n', ' '))).toEqual([
      'DELETE http://example.com/ Host: example.com Transfer-Encoding: chunked Connection: keep-alive',
      'DELETE http://example.com/ Host: example.com Connection: keep-alive',
      'POST http://a/ Host: a Content-Length: 0 Connection: keep-alive',
    ])
  })

  test('passes trailers both ways', async () => {
    await using proxy = await proxyServer({
      origin: (incoming, response) => {
        incoming.resume().on('end', () => {
          response.write('x')
          response.addTrailers({ 'X-Sum': String(incoming.trailers['x-sum']) })
          response.end()
        })
      },
    })
    const toServer = ask(await open(proxy), { method: 'POST', headers: { 'Transfer-Encoding': 'chunked' } })
    toServer.write('body')
    toServer.addTrailers({ 'X-Sum': '42' })
    expect((await answer(toServer.end())).response.trailers).toEqual({ 'x-sum': '42' })
  })

  test('serves HTTP/1.0 clients, a missing Host included', async () => {
    const log: string[] = []
    await using proxy = await proxyServer({
      log,
      origin: (_, response) => response.writeHead(200).end('old'),
    })
    expect(await exchange(await open(proxy), 'GET / HTTP/1.0\r\n\r\n')).toMatch(
      /^HTTP\/1.1 200 OK[^]*\r\n\r\nold$/,
    )
    expect(log[0]).toMatch(/^GET http:\/\/93.184.216.34\/\n/)
  })

  test('survives an answer that comes before the end of the upload', async () => {
    await using proxy = await proxyServer({
      origin: ({ method }, response) => void response.writeHead(method === 'PUT' ? 413 : 200).end(),
    })
    const connection = await open(proxy)
    connection.write('PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nstart')
    await until(connection, /^HTTP\/1.1 413/)
    connection.write(Buffer.alloc(1_000_000 - 5))
    connection.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    await until(connection, /200 OK/)
    expect(proxy.count).toBe(2)
    expect(proxy.sockets.size).toBe(1)
    connection.destroy()
    await proxy.idle()
  })
})
