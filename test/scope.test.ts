import { mkdirSync, rmdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial, inCgroup } from './rig/client.ts'
import { datagram, datagramEcho } from './rig/datagram.ts'
import { fixture } from './rig/fixture.ts'
import type { Program } from './rig/host.ts'
import { endFrom, sessionFrom, sessions } from './rig/sessions.ts'
import { addresses, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

/** Source ports that the origin has seen at one of its ports, from one address or all. */
const portsSeen = (port: number, from?: string) =>
  world.reached
    .filter((r) => r.port === port && (from === undefined || r.from === from))
    .map((r) => r.fromPort)

/** That the program itself reached the origin: a connection of ours comes from another port. */
async function expectDirect(port: number): Promise<void> {
  await expect.poll(() => portsSeen(22)).toContain(port)
}

describe('the whole of an interface', () => {
  let proxy: Program
  beforeAll(async () => {
    const { origin: v4 } = addresses[4]
    const { origin: v6 } = addresses[6]
    const rules = [
      `drop to ${v4} ${v6} dport 2222`,
      `direct to ${v4}/32 ${v6}/128 dport 1002`,
      'proxy dport 22,7',
      'direct dport 23-25',
    ]
    proxy = await world.proxy({ interfaces: ['wan0', 'wan1'], rules, plugin: 'accepting' })
  })
  afterAll(() => proxy?.stop())

  describe.each([4, 6] as const)('over IPv%i', (family) => {
    const { origin, client, second } = addresses[family]

    test('a static program is intercepted, and its bytes come back alike', async () => {
      const result = await dial(world.client, [origin, 7], { echo: 3_000_000 })
      expect(result).toMatchObject({ end: 'closed', received: 3_000_000, equal: true })
      expect(await endFrom(proxy, result.port)).toMatchObject({
        bytes: { sent: 3_000_000, received: 3_000_000 },
      })
    })

    test('an intercepted connection reaches the origin from another port of the same address', async () => {
      const result = await dial(world.client, [origin, 22], { read: 13 })
      expect(result.first).toBe('SSH-2.0-rig')
      expect(await sessionFrom(proxy, result.port)).toMatchObject({ interface: 'wan0', rule: 3 })
      await expect.poll(() => portsSeen(22, client).length).toBeGreaterThan(0)
      expect(portsSeen(22)).not.toContain(result.port)
    })

    test('a socket bound to another interface keeps address and interface', async () => {
      const result = await dial(world.client, [origin, 22], { device: 'wan1', send: 'hello', read: 18 })
      expect(result).toMatchObject({ end: 'closed', address: second, first: 'SSH-2.0-righello' })
      expect(await sessionFrom(proxy, result.port)).toMatchObject({ interface: 'wan1' })
      await expect.poll(() => portsSeen(22, second).length).toBeGreaterThan(0)
      expect(portsSeen(22, second)).not.toContain(result.port)
    })

    test('a rule that says direct leaves the connection alone: the origin sees its own port', async () => {
      const before = sessions(proxy).length
      const result = await dial(world.client, [origin, 1002], {})
      expect(result).toMatchObject({ end: 'fin', received: 1024 })
      await expect.poll(() => portsSeen(1002)).toContain(result.port)
      expect(sessions(proxy)).toHaveLength(before)
    })

    test('a rule that says drop lets the program wait until it gives up', async () => {
      const before = sessions(proxy).length
      expect((await dial(world.client, [origin, 2222], { timeout: 2500 })).end).toBe('timeout')
      expect(sessions(proxy)).toHaveLength(before)
    })

    test('a range of ports in a rule has both its ends', async () => {
      const before = sessions(proxy).length
      for (const port of [23, 24, 25])
        expect((await dial(world.client, [origin, port])).end).toBe('ECONNREFUSED')
      expect(sessions(proxy)).toHaveLength(before)
      // Beside it no rule matches: the connection is accepted, and then reset, for nobody listens there.
      const result = await dial(world.client, [origin, 26], {})
      expect(result.end).toBe('ECONNRESET')
      expect(await sessionFrom(proxy, result.port)).toMatchObject({ destination: { port: 26 } })
    })

    // The mark of replies, that of another instance, all bits, and somebody else's.
    test.each([0x7470_0080, 0x7470_0180, 0xffff_ffff, 0x1])(
      'a mark that a program sets, %i, does not exempt it',
      async (mark) => {
        const result = await dial(world.client, [origin, 22], { mark, read: 13 })
        expect(result.first).toBe('SSH-2.0-rig')
        expect(await sessionFrom(proxy, result.port)).toMatchObject({ destination: { address: origin } })
      },
    )

    // Setting a mark takes CAP_NET_ADMIN. These are what our routing rule matches, and it cannot tell them from steered
    // packets: the kernel looks for the local route before any hook of ours sees the connection.
    test.each([0x7470_0000, 0x7470_0101])(
      'the routing mark itself, %i, takes it past nobody',
      async (mark) => {
        // A port that nothing else here connects to, whose server speaks at once.
        const result = await dial(world.client, [origin, 1004], { mark, timeout: 1500 })
        expect(portsSeen(1004)).not.toContain(result.port)
      },
    )

    test('a daemon that has forked twice and left its session is intercepted', async () => {
      const before = sessions(proxy, 'client').length
      const daemon = `(setsid sh -c '"$0" --read 13 "$1" 22 >/run/daemon-"$1" &' "$0" "$1" &)`
      await world.client.run('sh', ['-c', daemon, await fixture('client'), origin])
      await expect.poll(() => sessions(proxy, 'client').length).toBe(before + 1)
      const said = () => world.client.run('cat', [`/run/daemon-${origin}`])
      await expect.poll(async () => (await said()).stdout).toContain('SSH-2.0-rig')
    })
  })
})

describe.each([4, 6] as const)('one cgroup, over IPv%i', (family) => {
  const { origin } = addresses[family]

  test('what is in it, or below it, is intercepted; what is beside it is not', async () => {
    const by = inCgroup(world.client, 'one')
    await using proxy = await world.proxy({ interfaces: 'auto', cgroup: `${world.client.cgroup}/one` })
    const inside = await dial(world.client, [origin, 22], { read: 13, by })
    expect(await sessionFrom(proxy, inside.port)).toMatchObject({
      process: { cgroup: expect.stringMatching(/\/one$/) },
    })
    const below = await dial(world.client, [origin, 22], { read: 13, by: inCgroup(world.client, 'one/two') })
    await sessionFrom(proxy, below.port)
    const beside = await dial(world.client, [origin, 22], { read: 13, by: inCgroup(world.client, 'oneself') })
    await expectDirect(beside.port)
    expect(sessions(proxy)).toHaveLength(2)
    await proxy.stop()
  })

  test('what others send in fragments passes, whatever the rules refuse', async () => {
    const inside = `${world.client.cgroup}/inside`
    mkdirSync(inside)
    await using _echo = await datagramEcho(world.internet, 9)
    const proxy = await world.proxy({ interfaces: ['wan0'], cgroup: inside, rules: ['drop dport 25'] })
    expect(await datagram(world.client, [origin, 9], { bytes: 5000 })).toBe('answered')
    expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
    rmdirSync(inside)
  })

  test('two proxies take a cgroup each, on the same interface, and neither sees the other one', async () => {
    const names = ['left', 'right'] as const
    const start = (name: string) => {
      inCgroup(world.client, name)
      return world.proxy({ interfaces: ['wan0'], cgroup: `${world.client.cgroup}/${name}` })
    }
    await using left = await start('left')
    await using right = await start('right')
    const ports = await Promise.all(
      names.map(async (name) => {
        const options = { read: 13, by: inCgroup(world.client, name) }
        const results = await Promise.all(
          Array.from({ length: 10 }, () => dial(world.client, [origin, 22], options)),
        )
        return results.map(({ port }) => port)
      }),
    )
    for (const [index, proxy] of [left, right].entries()) {
      for (const port of ports[index] ?? []) await sessionFrom(proxy, port)
      expect(sessions(proxy)).toHaveLength(10)
    }
    await left.stop()
    // What the first leaves, the second still needs.
    const result = await dial(world.client, [origin, 22], { read: 13, by: inCgroup(world.client, 'right') })
    expect(result.first).toBe('SSH-2.0-rig')
    await sessionFrom(right, result.port)
    const free = await dial(world.client, [origin, 22], { read: 13, by: inCgroup(world.client, 'left') })
    await expectDirect(free.port)
    await right.stop()
  })
})

describe.each([4, 6] as const)('start and stop, over IPv%i', (family) => {
  const { origin } = addresses[family]

  test('a connection older than the proxy goes on as it was, through its start, its life and its end', async () => {
    const older = await holdDial(world.client, [origin, 7], { echo: 500_000 })
    const oldest = await holdDial(world.client, [origin, 7], { echo: 500_000 })
    const last = await holdDial(world.client, [origin, 7], { echo: 500_000 })
    const proxy = await world.proxy({ interfaces: ['wan0'] })
    expect(await older.release()).toMatchObject({ end: 'closed', equal: true, received: 500_000 })
    expect(sessions(proxy)).toEqual([])
    const ending = proxy.stop()
    expect(await oldest.release()).toMatchObject({ end: 'closed', equal: true, received: 500_000 })
    await ending
    expect(await last.release()).toMatchObject({ end: 'closed', equal: true, received: 500_000 })
  })

  test('a connection of its time is finished while the proxy ends, and new ones go direct meanwhile', async () => {
    const proxy = await world.proxy({ interfaces: ['wan0'] })
    const held = await holdDial(world.client, [origin, 7], { echo: 500_000 })
    const ending = proxy.stop()
    await sleep(300)
    const direct = await dial(world.client, [origin, 22], { read: 13 })
    await expectDirect(direct.port)
    const result = await held.release()
    expect(result).toMatchObject({ end: 'closed', equal: true, received: 500_000 })
    expect(await ending).toMatchObject({ code: 0 })
    expect(await endFrom(proxy, result.port)).toMatchObject({
      how: expect.any(String),
      bytes: { sent: 500_000 },
    })
  })
})
