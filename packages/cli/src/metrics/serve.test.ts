import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { TransparentProxy } from '@tproxy/core'
import { LocalTransport } from '@tproxy/core/testing'
import { afterAll, expect, it } from 'vitest'
import { serveMetrics } from './serve.ts'

const directory = mkdtempSync(`${tmpdir()}/tproxy-metrics-`)
afterAll(() => rmSync(directory, { recursive: true }))

it('answers a scraper that sends parameters', async () => {
  await using proxy = await TransparentProxy.open({ transport: new LocalTransport() })
  await using _served = await serveMetrics(proxy, { host: '127.0.0.1', port: 9_469 })
  const ask = async (path: string) => (await fetch(`http://127.0.0.1:9469${path}`)).status
  expect(await Promise.all(['/metrics', '/metrics?name=x', '/metrics/', '/'].map(ask))).toEqual([
    200, 200, 404, 404,
  ])
})

it('takes the place of a socket where nobody listens, and of nothing else', async () => {
  await using proxy = await TransparentProxy.open({ transport: new LocalTransport() })
  const [file, socket] = [`${directory}/precious.txt`, `${directory}/abandoned.sock`]
  writeFileSync(file, 'precious')
  const message = `serve metrics at unix:${file}: what is there is no socket`
  await expect(serveMetrics(proxy, { path: file })).rejects.toMatchObject({
    code: 'E_SYSTEM',
    message: expect.stringContaining(message),
  })
  expect(readFileSync(file, 'utf8')).toBe('precious')

  execFileSync('python3', ['-c', `import socket; socket.socket(socket.AF_UNIX).bind('${socket}')`])
  await using _served = await serveMetrics(proxy, { path: socket })
  expect(statSync(socket).mode & 0o777).toBe(0o600)
  await expect(serveMetrics(proxy, { path: socket })).rejects.toThrow('EADDRINUSE')
})
