import { once } from 'node:events'
import type { Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { inspect } from 'node:util'
import { endpoint, TproxyError } from '@tproxy/core'
import { describe, expect, test } from 'vitest'
import { nothingGoesAstray } from '../../../test/local/astray.ts'
import type { LocalServer } from '../../../test/local/server.ts'
import { certificate, proxyServer, readHead, scripted } from '../test/proxy-server.ts'
import { type HttpUpstreamOptions, httpUpstream } from './upstream.ts'

const destination = endpoint('93.184.216.34', 443)
const never = new AbortController().signal

nothingGoesAstray()

async function open(url: string, options: HttpUpstreamOptions = {}, to = destination): Promise<Socket> {
  return (await httpUpstream(url, { timeoutMs: 2000, ...options }).connect(to, never)) as Socket
}

async function failure(url: string, options: HttpUpstreamOptions = {}, signal = never): Promise<TproxyError> {
  const error = await httpUpstream(url, { timeoutMs: 300, ...options })
    .connect(destination, signal)
    .then(
      () => expect.unreachable('it connected'),
      (reason: unknown) => reason,
    )
  if (!(error instanceof TproxyError)) throw error
  expect(error.code).toBe('E_UPSTREAM')
  expect(inspect(error, { depth: 20, showHidden: true })).not.toMatch(/hunter2|am86aHVudGVyMg/)
  return error
}

/** A server that echoes what it gets, and ends when it is ended. */
const echo = () => scripted((socket) => void socket.pipe(socket))

describe('a CONNECT tunnel', () => {
  test('carries bytes both ways, each half closing on its own', async () => {
    await using origin = await scripted(async (socket) => {
      expect(String(await buffer(socket))).toBe('ping')
      socket.end('pong')
    })
    const log: string[] = []
    await using proxy = await proxyServer({ tunnels: origin.port, log })
    const socket = await open(`http://127.0.0.1:${proxy.port}`)
    socket.end('ping')
    expect(String(await buffer(socket))).toBe('pong')
    expect(log).toEqual(['CONNECT 93.184.216.34:443\nHost: 93.184.216.34:443'])
    await proxy.idle()
  })

  test('is asked for by the host name when there is one', async () => {
    await using origin = await echo()
    const log: string[] = []
    await using proxy = await proxyServer({ tunnels: origin.port, log })
    const named = { ...endpoint('2001:db8::1', 443), name: 'shop.example' }
    const socket = await open(`http://127.0.0.1:${proxy.port}`, {}, named)
    socket.destroy()
    expect(log).toEqual(['CONNECT shop.example:443\nHost: shop.example:443'])
  })

  test('lets the client go on after the server has ended', async () => {
    await using proxy = await scripted(async (socket) => {
      await readHead(socket)
      socket.end('HTTP/1.1 200 OK\r\n\r\nbye')
      expect(String(await buffer(socket))).toBe('late')
      heard.resolve()
    })
    const heard = Promise.withResolvers<void>()
    const socket = await open(`http://127.0.0.1:${proxy.port}`)
    expect(String(await buffer(socket.pipe(new PassThrough())))).toBe('bye')
    await wait(10)
    socket.end('late')
    await heard.promise
  })

  test('names IPv6 destinations in brackets', async () => {
    await using origin = await echo()
    const log: string[] = []
    await using proxy = await proxyServer({ tunnels: origin.port, log })
    const socket = await open(`127.0.0.1:${proxy.port}`, {}, endpoint('2001:db8::1', 8443))
    expect(log[0]).toMatch(/^CONNECT \[2001:db8::1\]:8443\nHost: \[2001:db8::1\]:8443$/)
    socket.destroy()
  })

  test('sends user name and password, decoded, as Basic authentication', async () => {
    await using origin = await echo()
    const log: string[] = []
    await using proxy = await proxyServer({ tunnels: origin.port, log })
    const socket = await open(`http://j%C3%B6:p%40ss@127.0.0.1:${proxy.port}`)
    const credentials = Buffer.from('jö:p@ss').toString('base64')
    expect(log[0]).toContain(`Proxy-Authorization: Basic ${credentials}`)
    socket.destroy()
  })

  test.each([
    ['', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n'],
    [
      ' after interim answers',
      'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n',
    ],
  ])('keeps bytes that come with the reply%s, at every split', async (_, reply) => {
    const bytes = Buffer.from(`${reply}SSH-2.0-x\r\n`)
    await using proxy = await scripted(async (socket) => {
      const split = Number(/:(\d+) /.exec(await readHead(socket))?.[1])
      socket.write(bytes.subarray(0, split))
      await wait(2)
      socket.end(bytes.subarray(split))
    })
    const texts = await Promise.all(
      Array.from(bytes.keys(), async (split) => {
        const url = `http://127.0.0.1:${proxy.port}`
        const socket = await open(url, { plainPorts: [] }, endpoint('192.0.2.1', split))
        if (split % 2) await wait(20)
        return String(await buffer(socket))
      }),
    )
    expect(new Set(texts)).toEqual(new Set(['SSH-2.0-x\r\n']))
  })
})

describe('a CONNECT that is refused', () => {
  const answering = (text: string) =>
    scripted(async (socket) => {
      await readHead(socket)
      socket.end(text)
    })

  test('is reported with the status', async () => {
    await using proxy = await answering('HTTP/1.1 502 Bad Gateway\r\n\r\n<h1>sorry</h1>')
    const { message } = await failure(`http://127.0.0.1:${proxy.port}`)
    expect(message).toBe(
      `CONNECT 93.184.216.34:443 through http://127.0.0.1:${proxy.port}: the proxy answered 502 Bad Gateway`,
    )
    await proxy.idle()
  })

  test('for lack of credentials says what to write', async () => {
    await using proxy = await answering('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n')
    expect((await failure(`http://127.0.0.1:${proxy.port}`)).hint).toMatch(/user:password@/)
    expect((await failure(`http://jo:hunter2@127.0.0.1:${proxy.port}`)).hint).toMatch(/does not accept/)
  })

  test.each([
    ['HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n', /answered 101/],
    ['HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 407 No\r\n\r\n', /answered 407 No/],
    ['HTTP/1.1 103 Early Hints\r\n\r\n', /hang up/],
    ['HTTP/1.1 103 Early Hints\r\n\r\nSSH-2.0-OpenSSH\r\n', /Parse Error/],
    [`HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nX: ${'x'.repeat(100_000)}`, /Overflow/i],
    ['HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n', /answered 301/],
    ['HTTP/1.1 403 \x1b[2JNo\x07\r\n\r\n', /answered 403 \[2JNo$/],
    ['SSH-2.0-OpenSSH\r\n', /Parse Error/],
    ['HTTP/9.9 200 OK\r\n\r\n', /Parse Error/],
    ['HTTP/1.1 200 OK\r\nX: ', /hang up/],
    [`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(100_000)}`, /Overflow/i],
    ['', /hang up/],
  ])('by the answer %j ends in an error', async (text, message) => {
    await using proxy = await answering(text)
    expect((await failure(`http://jo:hunter2@127.0.0.1:${proxy.port}`)).message).toMatch(message)
    await proxy.idle()
  })

  test('by a closed port names the step', async () => {
    const proxy = await echo()
    const { port } = proxy
    await proxy[Symbol.asyncDispose]()
    expect((await failure(`http://jo:hunter2@127.0.0.1:${port}`)).message).toBe(
      `connect to http://127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}`,
    )
  })

  test('by a reset is reported', async () => {
    await using proxy = await scripted((socket) => void socket.resetAndDestroy())
    expect((await failure(`http://127.0.0.1:${proxy.port}`)).message).toMatch(/ECONNRESET/)
  })

  test('by silence, one byte at a time, or interim answers only, ends at the deadline', async () => {
    await using silent = await scripted((socket) => void socket.on('end', () => socket.end()).resume())
    await using slow = await scripted(async (socket) => {
      socket.on('end', () => socket.end()).resume()
      for (const byte of 'HTTP/1.1 200 OK\r\n\r\n') {
        socket.write(byte)
        await wait(100)
      }
    })
    await using interim = await scripted(async (socket) => {
      socket.on('end', () => socket.end()).resume()
      while (socket.writable) {
        socket.write('HTTP/1.1 103 Early Hints\r\n\r\n')
        await wait(10)
      }
    })
    const started = performance.now()
    const failures = [silent, slow, interim].map(({ port }) => failure(`http://127.0.0.1:${port}`))
    for (const { message } of await Promise.all(failures)) expect(message).toMatch(/no answer within 300 ms/)
    expect(performance.now() - started).toBeLessThan(700)
    await Promise.all([silent.idle(), slow.idle(), interim.idle()])
  })

  test('by our own abort closes the socket', async () => {
    await using silent = await scripted((socket) => void socket.on('end', () => socket.end()).resume())
    const url = `http://127.0.0.1:${silent.port}`
    expect((await failure(url, {}, AbortSignal.timeout(50))).message).toMatch(/CONNECT .*: aborted/)
    await silent.idle()
    expect((await failure(url, {}, AbortSignal.abort())).message).toMatch(/aborted/)
    expect(silent.count).toBe(1)
  })
})

describe('an https proxy', () => {
  const { key, cert } = certificate()

  async function echoed(proxy: LocalServer, host: string, options: HttpUpstreamOptions): Promise<string> {
    const socket = await open(`https://jo:pw@${host}:${proxy.port}`, options)
    socket.end('ping')
    return String(await buffer(socket))
  }

  test('is reached over TLS by name and by address', async () => {
    await using origin = await echo()
    await using proxy = await proxyServer({ tunnels: origin.port, tls: { key, cert } })
    expect(await echoed(proxy, 'localhost', { tls: { ca: cert } })).toBe('ping')
    expect(await echoed(proxy, '127.0.0.1', { tls: { ca: cert } })).toBe('ping')
    await proxy.idle()
  })

  test('is not trusted without a certificate that says who it is', async () => {
    await using proxy = await proxyServer({ tunnels: 1, tls: { key, cert } })
    const url = `https://jo:hunter2@127.0.0.1:${proxy.port}`
    expect((await failure(url)).message).toMatch(/^connect to https:.*self-signed certificate/)
    const other = { ca: cert, servername: 'proxy.example' }
    expect((await failure(url, { tls: other })).message).toMatch(/does not match certificate/)
  })

  test('can be left in a hurry', async () => {
    await using origin = await echo()
    await using proxy = await proxyServer({ tunnels: origin.port, tls: { key, cert } })
    const socket = await open(`https://127.0.0.1:${proxy.port}`, { tls: { ca: cert } })
    socket.resetAndDestroy()
    await once(socket, 'close')
  })

  test('that is none ends in an error', async () => {
    await using proxy = await scripted(async (socket) => {
      await once(socket, 'data')
      socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')
    })
    expect((await failure(`https://127.0.0.1:${proxy.port}`)).message).toMatch(/^connect to https:/)
  })
})
