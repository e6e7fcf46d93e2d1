import { text } from 'node:stream/consumers'
import { expect, test } from 'vitest'
import type { Plugin } from './plugin.ts'
import { ending } from './testing/ending.ts'
import { echo, useStage } from './testing/stage.ts'
import { direct, drop } from './verdict.ts'

const destination = { address: '203.0.113.1', port: 443 }

const stage = useStage()

test('plugins are replaced: those that left are not asked again, and clean up with the others', async () => {
  const closed: string[] = []
  const named = (name: string, plugin: Plugin) =>
    Object.assign(Object.defineProperty(plugin, 'name', { value: name }), {
      close: () => void closed.push(name),
    })
  const { dial } = await stage.origin(echo)
  const [first, second] = [named('first', () => direct()), named('second', () => undefined)]
  const { proxy, transport, nextSession } = await stage.start({ plugins: [first] }, dial)
  const before = nextSession()
  const held = await transport.connect({ destination })
  await before

  await proxy.replace({ plugins: [second], default: drop() })
  const after = nextSession()
  const refused = await transport.connect({ destination })
  expect(await ending(refused)).toBe('ECONNRESET')
  expect(await after).toMatchObject({ verdict: { kind: 'drop' } })
  held.end('still here')
  expect(await text(held)).toBe('still here')
  expect(closed).toEqual([])
  await proxy.close()
  expect(closed).toEqual(['first', 'second'])
})

test('a connection whose rule asks for a plugin that was replaced meanwhile is reset, never direct', async () => {
  const { dial } = await stage.origin(echo)
  const { transport, nextSession } = await stage.start({ plugins: [] }, dial)
  const next = nextSession()
  const program = await transport.connect({ destination, via: 'gone' })
  expect(await ending(program)).toBe('ECONNRESET')
  expect((await next).end?.error?.message).toContain('plugin gone')
})

test.each([
  [() => undefined, 'plugins is no list (write'],
  ['socks', 'plugins is no list (write'],
  [[() => undefined, 5], 'plugins[1] is no plugin (a plugin is'],
  [[undefined], 'plugins[0] is no plugin (a plugin is'],
])('plugins that are none are refused: %j', async (plugins, message) => {
  const refusal = { code: 'E_OPTION', message: expect.stringContaining(message) }
  await expect(stage.start({ plugins: plugins as never })).rejects.toMatchObject(refusal)
  const { proxy } = await stage.start({})
  await expect(proxy.replace({ plugins: plugins as never })).rejects.toMatchObject(refusal)
})
