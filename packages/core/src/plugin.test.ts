import { text } from 'node:stream/consumers'
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
