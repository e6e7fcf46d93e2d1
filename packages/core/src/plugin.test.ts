import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { firstValueFrom } from 'rxjs'
import { expect, test } from 'vitest'
import type { Plugin } from './plugin.ts'
import { TransparentProxy } from './proxy.ts'
import type { Session } from './session.ts'
import { LocalTransport, TestUpstream } from './testing.ts'
import { via } from './verdict.ts'

test('plugins clean up once the proxy has closed, and one that cannot is told of', async () => {
  const log: string[] = []
  const tidy: Plugin = Object.assign(() => undefined, { close: () => void log.push('tidy') })
  const broken: Plugin = Object.assign(() => undefined, {
    close: () => Promise.reject(new Error('disk full')),
  })
  const proxy = await TransparentProxy.open({ transport: new LocalTransport(), plugins: [broken, tidy] })
  proxy.sessions.subscribe({ complete: () => void log.push('closed') })
  await expect(proxy.close()).rejects.toMatchObject({
    code: 'E_PLUGIN',
    message: 'plugin anonymous failed: disk full',
  })
  expect(log).toEqual(['closed', 'tidy'])
  await expect(proxy.close()).rejects.toThrow('disk full')
  expect(log).toHaveLength(2)
})

test('a plugin can watch the session of what it decided', async () => {
  const echo = new TestUpstream()
  const ended = Promise.withResolvers<Session>()
  const watching: Plugin = (connection) => {
    void connection.session.then((session) => session.ended).then(ended.resolve)
    return via(echo)
  }
  const transport = new LocalTransport()
  await using _proxy = await TransparentProxy.open({ transport, plugins: [watching] })
  const program = await transport.connect({ destination: { address: '203.0.113.1', port: 443 } })
  program.end('hello')
  expect(await text(program)).toBe('hello')
  expect(await ended.promise).toMatchObject({ bytes: { sent: 5, received: 5 }, end: { how: 'closed' } })
})

// By node itself, as --plugin does: what vitest imports has other lines.
const load = createRequire(import.meta.url)

test.each([
  ['at once', 'export default (m) => {\n  m.process.foo.bar\n}', 2],
  ['later', 'export default async (m) => {\n  await m.peek({ deadlineMs: 1 })\n  m.foo.bar\n}', 3],
  ['in what it calls', 'export default () =>\n  JSON.parse("{")', 2],
  ['in what it calls of ours', '\nexport default (m) => m.peek({ deadlineMs: "x" })', 2],
])('a plugin that fails %s is told of with the place', async (_, source, line) => {
  const folder = mkdtempSync(join(tmpdir(), 'tproxy (plugin) '))
  const file = join(folder, 'a%20b.mjs')
  writeFileSync(file, source)
  const { default: plugin } = load(file) as { default: Plugin }
  rmSync(folder, { recursive: true })
  const transport = new LocalTransport()
  await using proxy = await TransparentProxy.open({ transport, plugins: [plugin] })
  const warning = firstValueFrom(proxy.warnings)
  const program = await transport.connect({ destination: { address: '203.0.113.1', port: 443 } })
  program.on('error', () => {})
  expect(await warning).toMatch(/^203\.0\.113\.1:443 refused: plugin default failed: .* \(at .*\)$/)
  expect(await warning).toContain(` (at ${file}:${line})`)
})
