import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import type { Program } from './rig/host.ts'
import { stateOf } from './rig/state.ts'
import { tellRules, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world.close())

const sessions = (proxy: Program) => proxy.events.filter(({ event }) => event === 'session')

/** A third interface to the origin, which may be made again. */
const addWan2 = () =>
  world.client.sh(`
    ip link add wan2 type veth peer name eth2 netns ${world.internet.pid}
    nsenter -t ${world.internet.pid} -n sh -c 'ip addr add 192.0.2.1/24 dev eth2; ip link set eth2 up'
    ip addr add 192.0.2.2/24 dev wan2
    ip link set wan2 up
    ip route add 203.0.113.10/32 via 192.0.2.1 dev wan2`)

/** One request that must be intercepted on wan2. */
async function viaWan2(proxy: Program): Promise<void> {
  const before = sessions(proxy).length
  const { code, stderr } = await world.client.run('curl', ['-sS', '-m', '5', 'http://203.0.113.10/'])
  expect(stderr).toBe('')
  expect(code).toBe(0)
  await proxy.until((p) => sessions(p).length > before, 'a session')
  expect(sessions(proxy).at(-1)).toMatchObject({ interface: 'wan2', source: { address: '192.0.2.2' } })
}

test('an interface that appears is intercepted within a second, and so is the one that takes its place', async () => {
  const before = await stateOf(world.client)
  await using proxy = await world.proxy({ interfaces: 'all' })
  for (let round = 0; round < 3; round++) {
    await addWan2()
    await sleep(900)
    await viaWan2(proxy)
    await world.client.sh('ip link del wan2')
  }
  await proxy.stop()
  expect(proxy.events.filter(({ event }) => event === 'warning' || event === 'uncaught')).toEqual([])
  expect(await stateOf(world.client)).toEqual(before)
})

test('an interface that goes down and up, or is renamed, stays intercepted, under its new name', async () => {
  await addWan2()
  await using proxy = await world.proxy({ interfaces: 'all' })
  await world.client.sh(`
    ip link set wan2 down
    ip link set wan2 up
    ip route add 203.0.113.10/32 via 192.0.2.1 dev wan2`)
  await viaWan2(proxy)
  await world.client.sh(`
    ip link set wan2 down
    ip link set wan2 name wan9
    ip link set wan9 up
    ip route add 203.0.113.10/32 via 192.0.2.1 dev wan9`)
  await sleep(900)
  const { code } = await world.client.run('curl', ['-sS', '-m', '5', 'http://203.0.113.10/'])
  expect(code).toBe(0)
  await proxy.until((p) => sessions(p).some((session) => session.interface === 'wan9'), 'a session on wan9')
  expect(sessions(proxy)).toHaveLength(2)
  await world.client.sh('ip link del wan9')
})

test('an interface that goes takes nobody with it, also while connections that were left alone use it', async () => {
  await addWan2()
  await using proxy = await world.proxy({ interfaces: 'all', plugin: 'direct' })
  const held = await holdDial(world.client, ['203.0.113.10', 7], { read: 1 })
  await proxy.until((p) => sessions(p).length === 1, 'a session')
  await world.client.sh('ip link del wan2')
  // Every one is looked at every five seconds.
  await sleep(6_000)
  held.program.kill()
  expect(await dial(world.client, ['203.0.113.10', 7], { send: 'x', read: 1 })).toMatchObject({
    end: 'closed',
  })
  expect(await proxy.stop()).toMatchObject({ code: 0 })
  expect(proxy.events.filter(({ event }) => event === 'uncaught')).toEqual([])
})

test('an interface that gets another address of the link layer is intercepted under that', async () => {
  await addWan2()
  await using proxy = await world.proxy({ interfaces: 'all' })
  const held = await holdDial(world.client, ['203.0.113.10', 7], { echo: 1_000_000 })
  await proxy.until((p) => sessions(p).length === 1, 'a session')
  await world.client.sh('ip link set wan2 address 02:00:00:00:00:99')
  await world.internet.sh('ip neigh flush dev eth2')
  await sleep(900)
  expect(await held.release()).toMatchObject({ end: 'closed', equal: true })
  await viaWan2(proxy)
  expect((await dial(world.client, ['203.0.113.10', 4])).end).toBe('ECONNREFUSED')
  await world.client.sh('ip link del wan2')
})

test('a command keeps being intercepted on an interface that appears while it runs', async () => {
  const command = 'while [ ! -e /run/go ]; do sleep 0.05; done; exec curl -sS -m 5 http://203.0.113.10/'
  await using run = world.run(['--json', '--', 'sh', '-c', command])
  await run.until(({ stderr }) => stderr.includes('"ready"'), 'the ready line')
  await addWan2()
  await sleep(900)
  await world.client.sh('touch /run/go')
  const { code, stderr } = await run.exited
  expect(code).toBe(0)
  expect(stderr).toMatch(/"interface":"wan2"/)
  await world.client.sh('ip link del wan2; rm /run/go')
})

test('an interface that appears is taken by one process only, whichever it is', async () => {
  const warnings = (proxy: Program) => proxy.events.filter(({ event }) => event === 'warning')
  const claimed = () => world.client.sh('cat /run/tproxy/*/[0-9]*.json')
  await using first = await world.proxy({ interfaces: 'all' })
  await addWan2()
  await expect.poll(claimed, { timeout: 10_000 }).toContain('"wan2"')
  await sleep(200)
  const taken = async () => (await tellRules(first, {})).interfaces
  expect(await taken()).toEqual(['wan0', 'wan1', 'wan2'])
  await viaWan2(first)
  await expect(world.proxy({ interfaces: ['wan2'] })).rejects.toThrow(
    `process ${first.pid} already intercepts wan2`,
  )

  await world.client.sh('ip link set wan2 down; ip link set wan2 name wan9')
  await expect.poll(claimed, { timeout: 10_000 }).not.toContain('"wan2"')
  // No route leads there, but our programs are where they were.
  expect(await claimed()).toContain('"wan9"')
  await world.client.sh(`
    ip link add wan2 type veth peer name wan2p
    ip link set wan2p up
    ip link set wan2 up`)
  await using other = await world.proxy({ interfaces: ['wan2'] })
  await world.client.sh('ip route add 192.0.2.128/32 dev wan2')
  await first.until((p) => warnings(p).length > 0, 'a warning')
  expect(warnings(first)[0].message).toMatch(`process ${other.pid} already intercepts wan2`)
  await other.stop()
  await world.client.sh('ip link del wan2; ip link del wan9')
  expect(await taken()).toEqual(['wan0', 'wan1'])
  await first.stop()
})
