import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { shortConnections } from './rig/crowd.ts'
import { fixture } from './rig/fixture.ts'
import type { Program } from './rig/host.ts'
import { endFrom } from './rig/sessions.ts'
import { digest, generate } from './rig/stream.ts'
import { addresses, type ProxyProgramOptions, tellRules, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

const MB = 1_000_000
const origin = addresses[4].origin

/** With a proxy that intercepts all programs of the client's cgroup, and relays. */
const proxied = (options: ProxyProgramOptions = {}) =>
  world.proxy({
    interfaces: ['wan0'],
    cgroup: world.client.cgroup,
    carry: 'relay',
    fastpath: 'to-proxy',
    accepting: true,
    ...options,
  })

const counts = async (proxy: Program) => (await tellRules(proxy, {})).fastpath ?? {}

async function expectEnd(proxy: Program): Promise<void> {
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
  expect(proxy.events.filter(({ event }) => event === 'uncaught' || event === 'warning')).toEqual([])
}

describe.each([4, 6] as const)('over IPv%i', (family) => {
  test.each(['to-proxy', 'both'] as const)('%s: bytes skip the network stack', async (fastpath) => {
    await using proxy = await proxied({ fastpath })
    const echoed = await dial(world.client, [addresses[family].origin, 7], { echo: 3 * MB, random: true })
    expect(echoed).toMatchObject({ end: 'closed', received: 3 * MB, equal: true })
    expect(await counts(proxy)).toMatchObject({ recorded: 1, joined: 1, full: 0 })
    expect((await counts(proxy))['redirected']).toBeGreaterThan(1)
    await expectEnd(proxy)
  })
})
