import { once } from 'node:events'
import { buffer } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
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
  ])('goes through a tunnel, as it came: %s', async (_, text) => {
    await using origin = await scripted(async (socket) => void socket.end(await buffer(socket)))
    const log: string[] = []
    await using proxy = await proxyServer({ log, tunnels: origin.port })
    expect(await exchange(await open(proxy), text)).toBe(text)
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

  test('may begin after plain requests', async () => {
    await using origin = await scripted(async (socket) => void socket.end(await buffer(socket)))
    await using proxy = await proxyServer({
      tunnels: origin.port,
      origin: (_, response) => response.end('plain'),
    })
    const connection = await open(proxy)
    connection.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    await until(connection, /plain/)
    await wait(5)
    expect(await exchange(connection, upgraded)).toBe(upgraded)
    await proxy.idle()
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
