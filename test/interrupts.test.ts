import { afterAll, beforeAll, expect, test } from 'vitest'
import { shortConnections } from './rig/crowd.ts'
import { expectEnd } from './rig/ending.ts'
import { ends } from './rig/sessions.ts'
import { addresses, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create({ rss: true })
})
afterAll(() => world?.close())

// An answer that comes while somebody else begins to connect is not heard by the program that notes that: of 4 000, ten or so.
test.each([4, 6] as const)(
  'what was left alone over IPv%i is known to have been served, also where packets come by interrupts',
  async (family) => {
    await using proxy = await world.proxy({ interfaces: ['wan0'], plugin: 'direct' })
    const many = { address: addresses[family].origin, port: 7, count: 4000, parallel: 100 }
    expect(await shortConnections(world.client, many)).toMatchObject({
      succeeded: 4000,
      failed: 0,
      error: '',
      unanswered: 0,
    })
    await proxy.until((program) => ends(program).length === 4000, 'their ends', 4_000)
    const served = { how: 'closed', carried: 'splice', bytes: { sent: 1, received: 1 } }
    expect(ends(proxy).filter((end) => !isLike(end, served))).toEqual([])
    await expectEnd(proxy)
  },
  30_000,
)

const isLike = (end: Record<string, unknown>, other: Record<string, unknown>) =>
  Object.entries(other).every(([key, value]) => JSON.stringify(end[key]) === JSON.stringify(value))
