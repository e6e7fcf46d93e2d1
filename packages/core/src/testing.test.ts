import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import type { Plugin } from './plugin.ts'
import { TransparentProxy } from './proxy.ts'
import { LocalTransport, TestUpstream, verdictOf } from './testing.ts'
import { direct, drop, via } from './verdict.ts'

const destination = { address: '203.0.113.1', port: 443 }

describe('verdictOf', () => {
  const upstream = new TestUpstream()
  const office: Plugin = async function office(connection) {
    if (connection.destination.port === 25) return drop()
    if (connection.process?.name === 'curl') return via(upstream)
    if (connection.process?.uid === 0) return direct()
    if (connection.destination.port === 80 && (await connection.peek()).name === 'a.example') return direct()
    return undefined
  }

  test('asks about a connection that is made up', async () => {
    expect(await verdictOf(office, { destination: { ...destination, port: 25 } })).toEqual(drop())
    expect(await verdictOf(office, { destination, process: { name: 'curl' } })).toEqual(via(upstream))
    expect(await verdictOf(office, { destination, process: { uid: 0 } })).toEqual(direct())
    expect(await verdictOf(office, { destination, process: {} })).toBeUndefined()
    expect(upstream.destinations).toEqual([])
  })

  test('says what the program says', async () => {
    const says = 'GET / HTTP/1.1\r\nHost: a.example\r\n\r\n'
    expect(await verdictOf(office, { destination: { ...destination, port: 80 }, says })).toEqual(direct())
  })

  test('rejects with what a proxy would have warned of', async () => {
    const broken: Plugin = function broken() {
      throw new Error('no idea')
    }
    await expect(verdictOf(broken, { destination })).rejects.toMatchObject({
      code: 'E_PLUGIN',
      message: 'plugin broken failed: no idea',
    })
    const settling: Plugin = async (connection) => void (await connection.settle(direct()))
    await expect(verdictOf(settling, { destination })).rejects.toThrow('a plugin returns its verdict')
  })
})

test('upstreams and destinations are served in this process', async () => {
  const origin = new TestUpstream(
    'origin',
    (socket, { address }) => void socket.resume().end(`I am ${address}`),
  )
  const echo = new TestUpstream()
  const transport = new LocalTransport({ direct: origin.connect })
  const plugins: Plugin[] = [({ interface: device }) => (device === 'wan1' ? via(echo) : undefined)]
  await using _proxy = await TransparentProxy.open({ transport, plugins })

  const one = await transport.connect({ destination })
  one.end()
  expect(await text(one)).toBe('I am 203.0.113.1')
  const two = await transport.connect({ destination, interface: 'wan1' })
  two.end('hello')
  expect(await text(two)).toBe('hello')
  expect([origin, echo].map(({ destinations }) => destinations)).toEqual([
    [{ ...destination, family: 4 }],
    [{ ...destination, family: 4 }],
  ])
})

test('a rule may name the plugin that is asked', async () => {
  const transport = new LocalTransport()
  const named = (name: string) => Object.defineProperty(() => drop(), 'name', { value: name })
  await using proxy = await TransparentProxy.open({ transport, plugins: [named('one'), named('two')] })
  const plugins: unknown[] = []
  proxy.sessions.subscribe(({ plugin }) => plugins.push(plugin))
  const program = await transport.connect({ destination, via: 'two' })
  await once(program.resume(), 'error')
  expect(plugins).toEqual(['two'])
})
