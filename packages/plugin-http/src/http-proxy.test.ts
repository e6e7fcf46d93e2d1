import { once } from 'node:events'
import { endpoint } from '@tproxy/core'
import { expect, test, vi } from 'vitest'
import { proxyServer } from '../test/proxy-server.ts'
import { httpUpstream } from './upstream.ts'

// In a file of its own, because node gives each warning only once per process.
test('no deprecation warning of http-proxy reaches the user', async () => {
  const warned = vi.fn()
  process.on('warning', warned)
  await using proxy = await proxyServer({ origin: (_, response) => response.end() })
  const upstream = httpUpstream(`http://127.0.0.1:${proxy.port}`)
  const connection = await upstream.connect(endpoint('93.184.216.34', 80), new AbortController().signal)
  connection.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await once(connection, 'data')
  await new Promise(setImmediate)
  process.off('warning', warned)
  expect(warned).not.toHaveBeenCalled()
  connection.destroy()
})
