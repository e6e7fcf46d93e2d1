import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { microsocks } from './rig/servers.ts'
import { endFrom } from './rig/sessions.ts'
import { stateOf } from './rig/state.ts'
import { addresses, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
  await world.client.sh('mkdir -p /run/bpf && mount -t bpf bpf /run/bpf')
})
afterAll(() => world?.close())

const MB = 1_000_000
const tree = () => world.client.sh('find /run/bpf -mindepth 1 -type d')

async function keeping(options: object = {}) {
  return world.proxy({ interfaces: ['wan0'], keepSpliced: true, ...options })
}

const adopted = (program: { events: { event: string }[] }) =>
  program.events.filter(({ event }) => event === 'adopted')

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]

  test('a connection does not notice that its proxy is killed, and the next one takes it over', async () => {
    const before = await stateOf(world.client)
    const first = await keeping()
    const busy = dial(world.client, [origin, 7], { echo: 1800 * MB, timeout: 40_000 })
    const held = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await first.until(({ events }) => events.filter(({ event }) => event === 'session').length === 2, 'both')
    await sleep(300)
    first.kill('SIGKILL')
    await first.exited
    // Nobody is there now but the kernel.
    await sleep(300)
    await using second = await keeping()
    expect(adopted(second)).toHaveLength(2)
    expect(await busy).toMatchObject({ end: 'closed', received: 1800 * MB, equal: true })
    expect(await held.release()).toMatchObject({ end: 'closed', received: 1000, equal: true })
    const ends = () => second.events.filter(({ event }) => event === 'adopted-end')
    await second.until(() => ends().length === 2, 'both ends')
    expect(ends().map(({ how }) => how)).toEqual(['closed', 'closed'])
    expect(
      ends()
        .map(({ bytes }) => bytes.sent)
        .toSorted((a, b) => a - b),
    ).toEqual([1000, 1800 * MB])
    // What is new is as ever.
    const fresh = await dial(world.client, [origin, 7], { echo: MB })
    expect(fresh).toMatchObject({ end: 'closed', received: MB, equal: true })
    expect(await endFrom(second, fresh.port)).toMatchObject({ how: 'closed', carried: 'splice' })
    expect(await second.stop()).toMatchObject({ code: 0, stderr: '' })
    expect(await stateOf(world.client)).toEqual(before)
    expect(await tree()).toBe('')
  }, 60_000)

  test('one that stops in order leaves them, and says so', async () => {
    await using first = await keeping()
    const held = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await sleep(300)
    expect(await first.stop()).toMatchObject({ code: 0, stderr: '' })
    expect(first.events.find(({ event }) => event === 'end')).toMatchObject({
      how: 'kept',
      carried: 'splice',
    })
    await using second = await keeping({ timeouts: { idleMs: 1000 } })
    expect(adopted(second)).toHaveLength(1)
    await second.until(
      ({ events }) => events.some(({ event, how }) => event === 'adopted-end' && how === 'timeout'),
      'its end',
      12_000,
    )
    expect((await held.release()).end).toBe('ECONNRESET')
    expect(await world.internet.sh('ss -Htn state established sport = :7')).toBe('')
    expect(await second.stop()).toMatchObject({ code: 0 })
    expect(await tree()).toBe('')
  }, 40_000)

  test('clean ends them on both sides, and leaves nothing', async () => {
    const before = await stateOf(world.client)
    const first = await keeping()
    const held = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await sleep(300)
    first.kill('SIGKILL')
    await first.exited
    const cleaned = world.run(['clean'])
    expect(await cleaned.exited).toMatchObject({ code: 0 })
    expect(cleaned.stdout).toContain('reset the connections that were kept (1)')
    expect((await held.release()).end).toBe('ECONNRESET')
    expect(await world.internet.sh('ss -Htn state established sport = :7')).toBe('')
    expect(await stateOf(world.client)).toEqual(before)
    expect(await tree()).toBe('')
  }, 40_000)
})

test('an interface of the one before, where the next does not look, carries nothing for it', async () => {
  await world.client.sh('ip link add spare0 type veth peer name spare1')
  const first = await keeping({ interfaces: ['wan1', 'spare0', 'spare1'] })
  first.kill('SIGKILL')
  await first.exited
  await using _server = await microsocks(world.internet, '198.51.100.129', 1080)
  await world.client.sh('ip route add 198.51.100.129 dev wan1 src 198.51.100.130')
  await using second = world.run(
    ['--json', '--keep', '-i', 'wan0', '-p', 'socks=socks5://198.51.100.129:1080'],
    { input: '' },
  )
  await second.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line')
  expect((await world.client.sh('find /run/bpf -name "ingress-*"')).trim().split('\n')).toHaveLength(1)
  const echoed = await dial(world.client, [addresses[4].origin, 7], { echo: 100_000 })
  expect(echoed).toMatchObject({ end: 'closed', received: 100_000, equal: true })
  const ends = () => second.events.filter(({ event }) => event === 'session-end')
  await second.until(() => ends().length === 1, 'the end')
  expect(ends()).toMatchObject([{ carried: 'relay', notSpliced: expect.stringContaining('interface') }])
  expect(await second.stop()).toMatchObject({ code: 0 })
  await world.client.sh('ip route del 198.51.100.129 dev wan1 src 198.51.100.130; ip link del spare0')
  expect(await tree()).toBe('')
})

test('an upstream on this host is reached on as well', async () => {
  await using _server = await microsocks(world.client, '127.0.0.1', 1080)
  const run = () =>
    world.run(['--json', '--keep', '-i', 'wan0', '-p', 'socks=socks5://127.0.0.1:1080'], { input: '' })
  const ready = ({ events }: { events: any[] }) => events.some(({ event }) => event === 'ready')
  const first = run()
  await first.until(ready, 'a ready line')
  // No more: with both directions full, microsocks waits for itself.
  const held = await holdDial(world.client, [addresses[4].origin, 7], { echo: 100_000 })
  await sleep(300)
  first.kill('SIGKILL')
  await first.exited
  const other = await holdDial(world.client, [addresses[4].origin, 7], { echo: 1000 })
  await other.release()
  expect(await held.release()).toMatchObject({ end: 'closed', received: 100_000, equal: true })
  await using second = run()
  await second.until(ready, 'a ready line')
  expect(await second.stop()).toMatchObject({ code: 0, stderr: '' })
  expect(await tree()).toBe('')
}, 40_000)

test('a start that does not keep lets them finish, and so does one with other maps', async () => {
  const first = await keeping()
  const held = await holdDial(world.client, [addresses[4].origin, 7], { echo: MB })
  const last = await holdDial(world.client, [addresses[4].origin, 7], { echo: MB })
  await sleep(300)
  first.kill('SIGKILL')
  await first.exited
  {
    await using second = await world.proxy({ interfaces: ['wan0'] })
    expect(await held.release()).toMatchObject({ end: 'closed', received: MB, equal: true })
    expect(await second.stop()).toMatchObject({ code: 0, stderr: '' })
  }
  await world.client.sh('cd /run/bpf/tproxy/*/ && mv 0-* 0-0123456789ab')
  await using third = await keeping()
  expect(adopted(third)).toEqual([])
  expect(await last.release()).toMatchObject({ end: 'closed', received: MB, equal: true })
  const fresh = await dial(world.client, [addresses[4].origin, 7], { echo: MB })
  expect(fresh).toMatchObject({ end: 'closed', received: MB, equal: true })
  expect(await endFrom(third, fresh.port)).toMatchObject({ how: 'closed', carried: 'splice' })
  expect(await third.stop()).toMatchObject({ code: 0, stderr: '' })
  await world.run(['clean']).exited
  expect(await tree()).toBe('')
}, 40_000)

test('without a bpf file system it says how to get one', async () => {
  await using bare = await World.create()
  const program = bare.run(['--keep', '-i', 'wan0'])
  expect(await program.exited).toMatchObject({ code: 125 })
  expect(program.stderr).toMatch(/no bpf file system is mounted.*mount -t bpf bpf \/sys\/fs\/bpf/)
})
