import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import { endpoint } from '@tproxy/core'
import { describe, expect, test, vi } from 'vitest'
import { nothingGoesAstray } from '../../../test/local/astray.ts'
import { end, open } from '../test/client.ts'
import { proxyServer, readHead, scripted } from '../test/proxy-server.ts'
import { httpUpstream } from './upstream.ts'

nothingGoesAstray()

describe('plain HTTP that fails', () => {
  const get = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'

  const answering = (text: string, reset = false) =>
    scripted(async (socket) => {
      await readHead(socket)
      socket.write(text, () => (reset ? socket.resetAndDestroy() : socket.destroy()))
    })

  test.each([
    ['nothing', '', /hang up/],
    ['noise', 'SSH-2.0-x\r\n', /Parse Error/],
    [
      'a switch of protocols',
      'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc',
      /answered 101/,
    ],
    ['half a head', 'HTTP/1.1 200 OK\r\nX', /hang up/],
    ['half a body', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf', /cut the response short/],
    [
      'half a chunk',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\nhalf',
      /cut the response short/,
    ],
  ])('because the proxy sends %s resets the client', async (_, text, message) => {
    for (const reset of [false, true]) {
      await using proxy = await answering(text, reset)
      const connection = await open(proxy)
      connection.write(get)
      const error = await end(connection)
      expect(error).toMatchObject({ code: 'E_UPSTREAM' })
      if (!reset) expect(error.message).toMatch(message)
      await proxy.idle()
    }
  })

  test('for lack of credentials says what to write, without showing any', async () => {
    const text = 'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n'
    for (const [scheme, hint] of [
      ['http://', /user:password@/],
      ['http://jo:hunter2@', /does not accept/],
    ] as const) {
      await using proxy = await answering(text)
      const connection = await open(proxy, {}, scheme)
      connection.write(get)
      const error = await end(connection)
      expect(error.message).toMatch(hint)
      expect(error.message).not.toMatch(/hunter2/)
    }
  })

  test('because nobody listens resets the client', async () => {
    const proxy = await proxyServer({})
    const connection = await open(proxy)
    await proxy[Symbol.asyncDispose]()
    connection.write(get)
    expect(await end(connection)).toMatchObject({
      code: 'E_UPSTREAM',
      message: expect.stringMatching(/^plain HTTP through http:.*: connect ECONNREFUSED/),
    })
  })

  test('because it is malformed resets the client, without an answer of ours', async () => {
    await using proxy = await proxyServer({ origin: (_, response) => response.end() })
    for (const text of [
      'GET / HTTP/1.1\r\nno colon\r\n\r\n',
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
      'GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n',
      'GET *@evil.example:22/ HTTP/1.1\r\nHost: a\r\n\r\n',
      `GET / HTTP/1.1\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`,
    ]) {
      const connection = await open(proxy)
      const seen = vi.fn()
      connection.on('data', seen)
      connection.write(text)
      expect(await end(connection)).toMatchObject({ code: 'E_UPSTREAM' })
      expect(seen).not.toHaveBeenCalled()
    }
    await proxy.idle()
  })

  test('leaves no upstream request behind when the client goes away', async () => {
    let running = 0
    await using proxy = await proxyServer({
      origin: (_, response) => {
        running++
        response.on('close', () => running--)
        response.write('start')
      },
    })
    const clients = await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        const connection = await open(proxy)
        connection.write(get)
        await once(connection, 'data')
        return { connection, index }
      }),
    )
    expect(running).toBe(50)
    for (const { connection, index } of clients)
      connection.destroy(...(index % 2 ? [new Error('reset by the client')] : []))
    await proxy.idle()
    expect(running).toBe(0)
  })

  test('leaves nothing behind when the client goes away before the answer, or in an upload', async () => {
    await using proxy = await proxyServer({ origin: () => {} })
    for (const text of [
      get,
      'PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1234',
      `${get}${get}`,
      'GET /',
      '',
    ]) {
      const connection = await open(proxy)
      if (text) connection.write(text)
      await wait(20)
      connection.destroy()
    }
    await proxy.idle()
  })
})

test('a signal that is aborted already opens nothing', async () => {
  const connecting = httpUpstream('http://127.0.0.1:1').connect(
    endpoint('192.0.2.1', 80),
    AbortSignal.abort(),
  )
  await expect(connecting).rejects.toMatchObject({ code: 'E_UPSTREAM' })
})
