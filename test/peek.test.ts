import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { dial } from './rig/client.ts'
import { shortConnections } from './rig/crowd.ts'
import type { Program } from './rig/host.ts'
import { endFrom, relayed, sessionFrom } from './rig/sessions.ts'
import { digest, generate } from './rig/stream.ts'
import { addresses, World } from './rig/world.ts'

let world: World
let proxy: Program
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())
beforeEach(async () => {
  proxy = await world.proxy({ interfaces: ['wan0'], plugin: 'peeking' })
})
afterEach(async () => {
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
  expect(proxy.events.filter(({ event }) => event === 'uncaught' || event === 'warning')).toEqual([])
})

const peeked = (id: number) => proxy.events.find((it) => it.event === 'peeked' && it.id === id)
const ends = () => proxy.events.filter(({ event }) => event === 'end')

/** Runs curl, and tells what it printed and what was peeked at. */
async function curl(script: string): Promise<{ stdout: string; peeked: unknown; end: unknown }> {
  const before = ends().length
  const stdout = await world.client.sh(script)
  await proxy.until(() => ends().length > before, 'the end')
  const end = ends().at(-1)
  return { stdout, peeked: peeked(end.id), end }
}

test('many that are peeked at lose nothing, and are all spliced', async () => {
  const many = { address: addresses[4].origin, port: 7, count: 2000, parallel: 100 }
  expect(await shortConnections(world.client, many)).toMatchObject({
    succeeded: 2000,
    failed: 0,
    error: '',
    unanswered: 0,
  })
  await proxy.until(() => ends().length === 2000, 'their ends', 20_000)
  expect(relayed(proxy)).toEqual([])
})

describe.each([4, 6] as const)('over IPv%i, a peeked connection', (family) => {
  const { origin, url } = addresses[family]
  const to = (port: number) => `--connect-to ::${url}:${port} -sS -m 20`

  test('tells the server name of TLS, and is spliced', async () => {
    const { stdout, ...rest } = await curl(`curl -k ${to(443)} https://shop.example/bytes/3000000 | wc -c`)
    expect(stdout).toBe('3000000\n')
    expect(rest).toMatchObject({
      peeked: { protocol: 'tls', name: 'shop.example' },
      end: { carried: 'splice' },
    })
  })

  test('tells the host of a request whose body comes with it, and every byte arrives', async () => {
    const size = 5_000_000
    const { stdout, ...rest } = await curl(
      `${generate(size)} | curl ${to(80)} -T - -H 'Expect:' http://shop.example/up`,
    )
    expect(stdout).toBe(`${digest(size)}\n`)
    expect(rest).toMatchObject({
      peeked: { protocol: 'http', name: 'shop.example' },
      end: { how: 'closed', carried: 'splice' },
    })
  })

  test('of another protocol tells nothing, and every byte comes back', async () => {
    const size = 3_000_000
    // While it is looked at, the process takes many times what the upstream has room for.
    for (let round = 0; round < 15; round++) {
      const dials = Array.from({ length: 4 }, () => dial(world.client, [origin, 7], { echo: size }))
      for (const echoed of await Promise.all(dials)) {
        expect(echoed).toMatchObject({ end: 'closed', received: size, equal: true })
        expect(peeked((await sessionFrom(proxy, echoed.port)).id)).not.toHaveProperty('protocol')
        expect(await endFrom(proxy, echoed.port)).toMatchObject({
          carried: 'splice',
          bytes: { sent: size, received: size },
        })
      }
    }
  })

  test('whose server speaks first waits no longer than the deadline', async () => {
    const start = performance.now()
    const greeted = await dial(world.client, [origin, 22], { read: 13, timeout: 5000 })
    expect(performance.now() - start).toBeLessThan(2000)
    expect(greeted).toMatchObject({ end: 'closed', first: 'SSH-2.0-rig' })
    expect(await endFrom(proxy, greeted.port)).toMatchObject({ carried: 'splice' })
  })

  test('that has ended its direction before is answered', async () => {
    const half = await dial(world.client, [origin, 9], { send: 'GET /', shutdown: true, timeout: 5000 })
    expect(half).toMatchObject({ end: 'fin', received: 67 })
    const silent = await dial(world.client, [origin, 9], { shutdown: true, timeout: 5000 })
    expect(silent).toMatchObject({ end: 'fin', received: 67 })
    for (const { port } of [half, silent])
      expect(await endFrom(proxy, port)).toMatchObject({ how: 'closed', carried: 'relay' })
  })
})
