import { duplexPair } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { sniff } from './sniff.ts'

const patience = { silenceMs: 40, lineMs: 80 }

describe('sniffing', () => {
  test('leaves every byte in place, however it arrives', async () => {
    const text = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
    for (const size of [1, 7, 100]) {
      const [client, server] = duplexPair()
      const http = sniff(server, client, patience)
      for (let at = 0; at < text.length; at += size) {
        client.write(text.slice(at, at + size))
        await wait(0)
      }
      client.end()
      expect(await http).toBe(true)
      expect(String(await buffer(server))).toBe(text)
    }
  })

  test('takes silence for a protocol where the server speaks first', async () => {
    const [client, server] = duplexPair()
    expect(await sniff(server, client, patience)).toBe(false)
    client.end('later')
    expect(String(await buffer(server))).toBe('later')
  })

  test('waits longer for the rest of what may become HTTP', async () => {
    const [client, server] = duplexPair()
    const http = sniff(server, client, patience)
    client.write('GET /')
    await wait(60)
    client.write(' HTTP/1.1\r\n')
    expect(await http).toBe(true)
  })

  test.each(['', 'GET'])('gives up at once when the client ends after %j', async (text) => {
    const [client, server] = duplexPair()
    const http = sniff(server, client, { silenceMs: 10_000, lineMs: 10_000 })
    client.end(text)
    expect(await http).toBe(false)
    expect(String(await buffer(server))).toBe(text)
  })

  test('gives up at once when the client is gone', async () => {
    const [client, server] = duplexPair()
    const http = sniff(server, client, { silenceMs: 10_000, lineMs: 10_000 })
    server.destroy()
    expect(await http).toBe(false)
  })
})
