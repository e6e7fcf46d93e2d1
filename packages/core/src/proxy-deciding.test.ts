import { text } from 'node:stream/consumers'
import { firstValueFrom } from 'rxjs'
import { expect, test } from 'vitest'
import type { Plugin } from './plugin.ts'
import { ending } from './testing/ending.ts'
import { echo, useStage } from './testing/stage.ts'
import { direct, drop, via } from './verdict.ts'

const destination = { address: '203.0.113.1', port: 443 }

const stage = useStage()

test('without a plugin a connection goes to its destination, and the session tells how it went', async () => {
  const { dial } = await stage.origin(echo)
  const { transport, nextSession } = await stage.start({}, dial)
  const pending = nextSession()
  const client = await transport.connect({ destination })
  client.end('hello')
  expect(await text(client)).toBe('hello')
  const session = await (await pending).ended
  expect(session).toMatchObject({
    plugin: undefined,
    verdict: { kind: 'direct' },
    bytes: { sent: 5, received: 5 },
    end: { how: 'closed' },
  })
  expect(session.connection.destination).toEqual({ ...destination, family: 4 })
})

test('the first plugin that answers decides, under its name; undefined asks the next', async () => {
  const { dial } = await stage.origin(echo)
  const asked: string[] = []
  const silent: Plugin = function silent() {
    asked.push('silent')
    return undefined
  }
  const deciding: Plugin = async function deciding() {
    asked.push('deciding')
    return direct()
  }
  const never: Plugin = function never() {
    asked.push('never')
    return drop()
  }
  const { transport, nextSession } = await stage.start({ plugins: [silent, deciding, never] }, dial)
  const pending = nextSession()
  const client = await transport.connect({ destination })
  client.end('x')
  expect(await text(client)).toBe('x')
  expect((await pending).plugin).toBe('deciding')
  expect(asked).toEqual(['silent', 'deciding'])
})

test('drop resets the client, or closes in order when asked to', async () => {
  const { transport } = await stage.start({
    plugins: [({ destination: { port } }) => drop({ reset: port === 25 })],
  })
  const reset = await transport.connect({ destination: { ...destination, port: 25 } })
  expect(await ending(reset)).toBe('ECONNRESET')
  const closed = await transport.connect({ destination })
  expect(await ending(closed)).toBe('end')
})

test.each<[string, Plugin, string]>([
  [
    'throws',
    () => {
      throw new Error('broken')
    },
    'failed: broken',
  ],
  ['rejects', () => Promise.reject(new Error('broken')), 'failed: broken'],
  ['answers nonsense', () => ({ kind: 'maybe' }) as never, 'returned something that is no verdict'],
  ['answers a verdict by hand without an upstream', () => ({ kind: 'via' }) as never, 'that is no verdict'],
  [
    'answers a verdict by hand with a transform that is none',
    () => ({ kind: 'direct', transform: 'gzip' }) as never,
    'that is no verdict',
  ],
  ['goes via nothing', () => via(undefined as never), 'failed: via: no upstream is given'],
  ['never answers', () => new Promise(() => {}), 'gave no verdict within 100 ms'],
])(
  'a plugin that %s costs its own connection, which is reset and never goes direct',
  async (_, plugin, message) => {
    let reached = 0
    const { dial } = await stage.origin((socket) => {
      reached++
      echo(socket)
    })
    const { proxy, transport } = await stage.start(
      {
        plugins: [(connection) => (connection.destination.port === 1 ? plugin(connection) : undefined)],
        timeouts: { decisionMs: 100, drainMs: 0 },
      },
      dial,
    )
    const warning = firstValueFrom(proxy.warnings)
    const victim = await transport.connect({ destination: { ...destination, port: 1 } })
    expect(await ending(victim)).toBe('ECONNRESET')
    expect(await warning).toContain(message)
    expect(reached).toBe(0)
    const other = await transport.connect({ destination })
    other.end('fine')
    expect(await text(other)).toBe('fine')
  },
)
