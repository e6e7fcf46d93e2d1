import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { TransparentProxy } from './proxy.ts'
import { LocalTransport } from './testing.ts'
import type { Destination, Upstream } from './upstream.ts'
import { via } from './verdict.ts'

const destination = { address: '203.0.113.1', port: 8080 }
const request = (host: string) => `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`

let cleanUp = new AsyncDisposableStack()
afterEach(async () => {
  await cleanUp.disposeAsync()
  cleanUp = new AsyncDisposableStack()
})

/** Where the upstream is told to go by a program that says this, and what of it was peeked at. */
async function asked(says: string, names: boolean | undefined, own: { names?: boolean } = {}) {
  const { promise, resolve } = Promise.withResolvers<Destination>()
  const upstream: Upstream = {
    name: 'asked',
    ...own,
    connect: (where) => {
      resolve(where)
      return Promise.reject(new Error('seen'))
    },
  }
  const transport = new LocalTransport()
  const options = { transport, plugins: [() => via(upstream)], timeouts: { drainMs: 0 } }
  const proxy = cleanUp.use(
    await TransparentProxy.open({ ...options, ...(names !== undefined && { names }) }),
  )
  let peeked: unknown
  proxy.sessions.subscribe(async (session) => {
    await session.ended
    peeked = session.connection.peeked
  })
  const program = await transport.connect({ destination })
  program.on('error', () => {}).write(says)
  const where = await promise
  await sleep(10)
  return { where, peeked }
}

test('an upstream is told the name that the program speaks of, with the port that it chose', async () => {
  const { where, peeked } = await asked(request('Shop.example:80'), true)
  expect(where).toEqual({ ...destination, family: 4, name: 'shop.example' })
  expect(peeked).toEqual({ protocol: 'http', name: 'shop.example' })
})

test.each(['192.0.2.1', 'localhost', 'my.localhost', 'not a name', '2130706433'])(
  'the address stays where the name is %s',
  async (host) => {
    expect((await asked(request(host), true)).where).toEqual({ ...destination, family: 4 })
  },
)

test('nobody looks for a name that is not wanted', async () => {
  const { where, peeked } = await asked(request('shop.example'), undefined)
  expect(where).toEqual({ ...destination, family: 4 })
  expect(peeked).toBeUndefined()
})

test('an upstream’s own wish comes first', async () => {
  const says = request('shop.example')
  expect((await asked(says, true, { names: false })).where).not.toHaveProperty('name')
  expect((await asked(says, false, { names: true })).where).toHaveProperty('name', 'shop.example')
})
