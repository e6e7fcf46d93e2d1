import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, test, vi } from 'vitest'
import { nothingGoesAstray } from '../../../test/local/astray.ts'
import { open } from '../test/client.ts'
import { proxyServer } from '../test/proxy-server.ts'

nothingGoesAstray()

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Writes a text again and again until the connection takes no more; returns how often it was taken. */
async function flood(connection: Duplex, text: string, most: number): Promise<number> {
  for (let count = 0; count < most; count++)
    if (!connection.write(text) && !(await Promise.race([once(connection, 'drain'), wait(200, false)])))
      return count
  return most
}

describe('a client that sends requests ahead', () => {
  const requests = 'GET / HTTP/1.1\r\n\r\n'.repeat(1000)

  test('is held back while the proxy does not answer, and takes little memory until then', async () => {
    let asked = 0
    await using proxy = await proxyServer({ origin: () => asked++ })
    const connection = await open(proxy)
    collect()
    const before = process.memoryUsage().heapUsed
    // 64 KB wait in our end of the connection, as in front of any reader that has stopped.
    expect(await flood(connection, requests, 120)).toBeLessThan(10)
    collect()
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(8_000_000)
    await vi.waitFor(() => expect(asked).toBe(1), { timeout: 5000 })
    connection.destroy()
    await proxy.idle()
  })

  test('gets all answers, in order, from one that does', async () => {
    const count = 1000
    const order: number[] = []
    await using proxy = await proxyServer({
      origin: ({ url = '' }, response) => {
        order.push(Number(url.split('/').at(-1)))
        response.end(`<${order.at(-1)}>`)
      },
    })
    const connection = await open(proxy)
    let text = ''
    connection.on('data', (chunk: Buffer) => (text += String(chunk)))
    for (let n = 0; n < count; n++) connection.write(`GET /${n} HTTP/1.1\r\nHost: a\r\n\r\n`)
    await vi.waitFor(() => expect(text).toContain(`<${count - 1}>`), { timeout: 20_000 })
    const all = Array.from({ length: count }, (_, n) => n)
    expect(order).toEqual(all)
    expect(text.match(/(?<=<)\d+(?=>)/g)?.map(Number)).toEqual(all)
    connection.destroy()
    await proxy.idle()
  })

  test('gets them as well when the last that is let in has a body still to come', async () => {
    const { promise: go, resolve } = Promise.withResolvers<void>()
    await using proxy = await proxyServer({
      origin: async (incoming, response) => {
        await go
        incoming.on('end', () => response.end('<done>')).resume()
      },
    })
    const connection = await open(proxy)
    const body = 100_000
    const ahead = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(31)
    connection.write(
      `${ahead}PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body}\r\n\r\n${'x'.repeat(body)}`,
    )
    let answers = 0
    connection.on('data', (chunk: Buffer) => {
      answers += String(chunk).split('<done>').length - 1
    })
    await wait(20)
    resolve()
    await vi.waitFor(() => expect(answers).toBe(32))
    connection.destroy()
    await proxy.idle()
  })

  test('is noticed to have gone away while it is held back', async () => {
    await using proxy = await proxyServer({ origin: () => {} })
    const connection = await open(proxy)
    await flood(connection, requests, 20)
    connection.destroy()
    await proxy.idle()
  })
})
