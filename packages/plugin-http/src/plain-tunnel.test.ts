import { once } from 'node:events'
import { buffer } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { describe, expect, test, vi } from 'vitest'
import { nothingGoesAstray } from '../../../test/local/astray.ts'
import { end, exchange, open, until } from '../test/client.ts'
import { proxyServer, readHead, scripted } from '../test/proxy-server.ts'

nothingGoesAstray()

describe('what is not plain HTTP on port 80', () => {
  const upgraded = 'GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframe'

  test.each([
    ['a websocket', upgraded],
    ['a CONNECT of its own', 'CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\nframe'],
    ['another protocol', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['noise', '\x00\x01\x02'],
    ['something short', 'hi'],
    ['nothing', ''],
    // node's parser would refuse these.
    ['HTTP with bare line feeds', 'GET / HTTP/1.0\nHost: a\n\n'],
    ['a method that is not well known', 'VERSION-CONTROL /a HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['a target that is not ASCII', 'GET /ü?q=é HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['a websocket, or else HTTP/2', upgraded.replace('websocket', 'h2c, websocket')],
  ])('goes through a tunnel, as it came: %s', async (_, text) => {
    await using origin = await scripted(async (socket) => void socket.end(await buffer(socket)))
    const log: string[] = []
    await using proxy = await proxyServer({ log, tunnels: origin.port })
    expect(await exchange(await open(proxy), text)).toBe(Buffer.from(text).toString('latin1'))
    expect(log.map((entry) => entry.split('\n')[0])).toEqual(['CONNECT 93.184.216.34:80'])
    await proxy.idle()
  })

  test('may be a protocol where the server speaks first', async () => {
    await using origin = await scripted((socket) => void socket.end('220 ready\r\n'))
    await using proxy = await proxyServer({ tunnels: origin.port })
    const connection = await open(proxy)
    expect(String(await buffer(connection))).toBe('220 ready\r\n')
    connection.end()
    await proxy.idle()
  })

  test.each([upgraded, 'CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\nframe'])(
    'may begin after plain requests: %j',
    async (text) => {
      await using origin = await scripted(async (socket) => void socket.end(await buffer(socket)))
      await using proxy = await proxyServer({
        tunnels: origin.port,
        origin: (_, response) => response.end('plain'),
      })
      const connection = await open(proxy)
      connection.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
      await until(connection, /plain/)
      expect(await exchange(connection, text)).toBe(text)
      await proxy.idle()
    },
  )

  test('resets the client when no tunnel can be had with our options', async () => {
    await using proxy = await proxyServer({})
    const connection = await open(
      proxy,
      { tls: { ca: 'none', minVersion: 'TLSv9' as 'TLSv1.3' } },
      'https://',
    )
    connection.write('\x00')
    expect(await end(connection)).toMatchObject({
      code: 'E_UPSTREAM',
      message: expect.stringMatching(/TLSv9/),
    })
  })

  test('resets the client when the tunnel is refused or cut', async () => {
    await using refusing = await proxyServer({})
    const refused = await open(refusing)
    refused.write('\x00')
    expect(await end(refused)).toMatchObject({
      code: 'E_UPSTREAM',
      message: expect.stringMatching(/answered 403/),
    })

    await using cutting = await scripted(async (socket) => {
      await readHead(socket)
      socket.write('HTTP/1.1 200 OK\r\n\r\npart')
      await once(socket, 'data')
      socket.resetAndDestroy()
    })
    const cut = await open(cutting)
    cut.write('\x00')
    expect(await end(cut)).toMatchObject({ code: 'E_UPSTREAM', message: expect.stringMatching(/ECONNRESET/) })
  })

  test('is reset at the proxy when the client goes away', async () => {
    const { promise, resolve } = Promise.withResolvers<unknown>()
    await using proxy = await scripted((socket) => {
      socket.on('error', resolve)
      socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\n\r\n'))
    })
    const connection = await open(proxy)
    connection.write('\x00')
    await wait(30)
    connection.destroy()
    expect(await promise).toMatchObject({ code: 'ECONNRESET' })
    await proxy.idle()
  })
})

describe('an offer of HTTP/2, as Java and curl make it,', () => {
  const offer = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n'
  const echoing = (log: string[]) =>
    proxyServer({
      log,
      origin: async (incoming, response) =>
        response.end(`<${incoming.method} ${String(await buffer(incoming))}>`),
    })

  test.each([
    ['GET', '', ''],
    ['POST', 'Content-Length: 5\r\n', 'hello'],
    ['POST', 'Transfer-Encoding: chunked\r\n', '5\r\nhello\r\n0\r\n\r\n'],
  ])('is ignored: the %s with %j is forwarded, and so is what follows', async (method, framing, body) => {
    const log: string[] = []
    await using proxy = await echoing(log)
    const request = `${method} /a HTTP/1.1\r\nHost: a\r\n${offer}${framing}\r\n${body}`
    for (const pause of [0, 5]) {
      const connection = await open(proxy)
      const answers = until(connection, /<DELETE >/)
      connection.write(request.slice(0, -3))
      await wait(pause)
      connection.write(`${request.slice(-3)}DELETE / HTTP/1.1\r\nHost: a\r\n\r\n`)
      await answers
      connection.destroy()
      expect(log.map((entry) => entry.split('\n')[0])).toEqual([`${method} http://a/a`, 'DELETE http://a/'])
      expect(log.join('\n')).not.toMatch(/upgrade|http2-settings/i)
      log.length = 0
    }
    await proxy.idle()
  })

  test('may come with every request', async () => {
    const warned = vi.fn()
    process.on('warning', warned)
    await using proxy = await echoing([])
    const connection = await open(proxy)
    for (let n = 0; n < 20; n++) {
      const answer = until(connection, /<GET >/)
      connection.write(`GET / HTTP/1.1\r\nHost: a\r\n${offer}\r\n`)
      await answer
    }
    expect(await exchange(connection, `GET / HTTP/1.1\r\nHost: a\r\n${offer}\r\n`)).toMatch(/<GET >$/)
    expect(proxy.count).toBe(1)
    process.off('warning', warned)
    expect(warned).not.toHaveBeenCalled()
  })

  test('may come before the last answer is read', async () => {
    await using proxy = await echoing([])
    const connection = await open(proxy)
    const request = `GET / HTTP/1.1\r\nHost: a\r\n${offer}\r\n`
    connection.write(request)
    await wait(30)
    connection.write(request)
    await wait(30)
    await until(connection, /<GET >[^]*<GET >/)
    connection.destroy()
  })

  test('that comes before the last answer does ends the connection, rather than its order', async () => {
    await using proxy = await proxyServer({ origin: () => {} })
    const connection = await open(proxy)
    const request = 'GET / HTTP/1.1\r\nHost: a\r\n'
    connection.write(`${request}\r\n${request}\r\n${request}${offer}\r\n`)
    expect(await end(connection)).toMatchObject({
      message: expect.stringMatching(/asks for another protocol before the last request was answered/),
    })
    // None of the requests is made any more.
    await wait(30)
    await proxy.idle()
  })
})
