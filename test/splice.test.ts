import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { holdConnections, shortConnections } from './rig/crowd.ts'
import { expectEnd } from './rig/ending.ts'
import { firewall } from './rig/firewall.ts'
import { endFrom, ends, relayed } from './rig/sessions.ts'
import { addresses, tellRules, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

const MB = 1_000_000

/** With a proxy that intercepts wan0 and carries connections as `carry` says. */
async function proxied(
  options: { carry?: 'splice' | 'relay'; timeouts?: Record<string, number>; plugin?: string } = {},
) {
  return world.proxy({ interfaces: ['wan0'], ...options })
}

/** Packets and bytes that an interface of the client has sent. */
async function sentBy(name: string): Promise<{ packets: number; bytes: number }> {
  const [{ stats64 }] = JSON.parse(await world.client.sh(`ip -s -j link show ${name}`))
  return stats64.tx
}

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]

  test('a connection runs in the kernel, and its bytes and end are known', async () => {
    await using proxy = await proxied()
    const echoed = await dial(world.client, [origin, 7], { echo: 3 * MB })
    expect(echoed).toMatchObject({ end: 'closed', received: 3 * MB, equal: true })
    expect(await endFrom(proxy, echoed.port)).toMatchObject({
      how: 'closed',
      carried: 'splice',
      bytes: { sent: 3 * MB, received: 3 * MB },
    })
    // The server answers when the client has ended its direction.
    const held = await holdDial(world.client, [origin, 9], { send: 'x', shutdown: true })
    await sleep(200)
    const half = await held.release()
    expect(half).toMatchObject({ end: 'fin', received: 67 })
    expect(await endFrom(proxy, half.port)).toMatchObject({
      how: 'closed',
      carried: 'splice',
      bytes: { sent: 1, received: 67 },
    })
    const reset = await dial(world.client, [origin, 1001], { send: 'x' })
    expect(reset.end).toBe('ECONNRESET')
    expect(await endFrom(proxy, reset.port)).toMatchObject({ how: 'reset', by: 'upstream' })
    await expectEnd(proxy)
  })

  test('its rule counts what the program sends, until other rules are in force', async () => {
    await using proxy = await world.proxy({ interfaces: ['wan0'], rules: ['direct dport 22', 'proxy tcp'] })
    const held = await holdDial(world.client, [origin, 7], { echo: 3 * MB })
    // Silent, so that the kernel carries all of it.
    await sleep(300)
    const handshake = (await tellRules(proxy, {})).counts?.[2] ?? [0, 0]
    expect(handshake[0]).toBeLessThan(5)
    const left = await sentBy('wan0')
    const echoed = await held.release()
    expect(await endFrom(proxy, echoed.port)).toMatchObject({ carried: 'splice' })
    const { counts } = await tellRules(proxy, {})
    const after = await sentBy('wan0')
    expect(counts?.[1]).toEqual([0, 0])
    expect(counts?.[2]?.[1]).toBeGreaterThan(3 * MB)
    // All of them, also what TCP sends again, and none twice; the interface counts 14 bytes more for each.
    const [packets, bytes] = [0, 1].map((at) => (counts?.[2]?.[at] ?? 0) - (handshake[at] ?? 0)) as [
      number,
      number,
    ]
    expect(Math.abs(after.packets - left.packets - packets)).toBeLessThan(10)
    expect(Math.abs(after.bytes - left.bytes - bytes - 14 * packets)).toBeLessThan(2_000)

    const older = await holdDial(world.client, [origin, 7], { echo: MB })
    await sleep(300)
    await tellRules(proxy, { rules: ['proxy tcp'] })
    await older.release()
    expect((await tellRules(proxy, {})).counts?.[1]).toEqual([0, 0])
    await expectEnd(proxy)
  })

  test('it goes on while the proxy stands still', async () => {
    await using proxy = await proxied()
    const held = await holdDial(world.client, [origin, 22], { send: 'x'.repeat(1000), read: 1013 })
    await proxy.until(({ events }) => events.some(({ event }) => event === 'session'), 'a session')
    await sleep(300)
    proxy.kill('SIGSTOP')
    try {
      expect(await held.release()).toMatchObject({ end: 'closed', received: 1013 })
    } finally {
      proxy.kill('SIGCONT')
    }
    await expectEnd(proxy)
  })

  test('relay carries it in the process instead', async () => {
    await using proxy = await proxied({ carry: 'relay' })
    const echoed = await dial(world.client, [origin, 7], { echo: MB })
    expect(echoed).toMatchObject({ end: 'closed', received: MB, equal: true })
    expect(await endFrom(proxy, echoed.port)).toMatchObject({
      carried: 'relay',
      bytes: { sent: MB, received: MB },
    })
    await expectEnd(proxy)
  })

  test('one that is idle too long is reset on both sides', async () => {
    await using proxy = await proxied({ timeouts: { idleMs: 1000 } })
    const held = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await proxy.until((program) => ends(program).length > 0, 'the end', 12_000)
    expect(ends(proxy)).toMatchObject([{ how: 'timeout', carried: 'splice' }])
    expect((await held.release()).end).toBe('ECONNRESET')
    expect(await world.internet.sh('ss -Htn state established sport = :7')).toBe('')
    await expectEnd(proxy)
  })

  test('a network that loses packets costs time, but no byte of either direction', async () => {
    await using proxy = await proxied()
    for (const percent of [1, 5]) {
      await using _out = await firewall(
        world.internet,
        'prerouting',
        `numgen random mod 100 < ${percent} drop`,
      )
      // Not what our socket says to the program over lo: the kernel gives up a handshake whose answer it could not send.
      const leaving = `oifname "wan0" numgen random mod 100 < ${percent} drop`
      await using _in = await firewall(world.client, 'output', leaving)
      const results = await Promise.all(
        Array.from({ length: 16 }, () => dial(world.client, [origin, 7], { echo: MB, timeout: 20_000 })),
      )
      for (const result of results) {
        expect(result).toMatchObject({ end: 'closed', received: MB, equal: true })
        expect(await endFrom(proxy, result.port)).toMatchObject({ carried: 'splice' })
      }
    }
    await expectEnd(proxy)
  }, 90_000)

  test.each([
    ['decided at once', 'direct'],
    ['looked into, so that we have what they said first', 'peeking'],
  ])(
    'many that talk at once, %s, lose nothing and are all spliced',
    async (_, plugin) => {
      await using proxy = await proxied({ plugin })
      const result = await shortConnections(world.client, {
        address: origin,
        port: 7,
        count: 3000,
        parallel: 100,
      })
      expect(result).toMatchObject({ succeeded: 3000, failed: 0, error: '', unanswered: 0 })
      const { held, exchange } = await holdConnections(world.client, {
        address: origin,
        port: 7,
        count: 1000,
        parallel: 50,
      })
      expect(held).toBe(1000)
      expect(await exchange()).toMatchObject({ succeeded: 1000, failed: 0, error: '', unanswered: 0 })
      await proxy.until((program) => ends(program).length === 4000, 'their ends', 10_000)
      expect(relayed(proxy)).toEqual([])
      await expectEnd(proxy)
    },
    60_000,
  )

  test.each([
    [
      'the upstream has no timestamps',
      'sysctl -qw net.ipv4.tcp_timestamps=',
      ['0', '1'],
      'timestamps differ',
    ],
    [
      'the upstream has no selective acknowledgement',
      'sysctl -qw net.ipv4.tcp_sack=',
      ['0', '1'],
      'selective',
    ],
  ] as const)('%s: it is relayed, and nobody notices', async (_, set, [off, on], why) => {
    await using proxy = await proxied()
    await world.internet.sh(`${set}${off}`)
    try {
      const echoed = await dial(world.client, [origin, 7], { echo: MB })
      expect(echoed).toMatchObject({ end: 'closed', received: MB, equal: true })
      expect(await endFrom(proxy, echoed.port)).toMatchObject({
        carried: 'relay',
        notSpliced: expect.stringContaining(why),
      })
    } finally {
      await world.internet.sh(`${set}${on}`)
    }
    await expectEnd(proxy)
  })
})

test('a server that reads nothing, and sends more than 2 GB', async () => {
  await using proxy = await proxied()
  // So our sockets still hold what it does not take: it is all the time as if the pair had just been armed.
  await using server = world.internet.spawn('python3', [
    '-c',
    `
import socket
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
listener.bind(('', 2101)); listener.listen()
print('ready', flush=True)
peer = listener.accept()[0]
block = bytes(1 << 20)
for _ in range(2500): peer.sendall(block)
peer.shutdown(1)
while peer.recv(1 << 16): pass`,
  ])
  await server.until(({ stdout }) => stdout.includes('ready'), 'the server')
  const client = `
import socket, sys
s = socket.create_connection(('${addresses[4].origin}', 2101))
s.setblocking(False); sent = s.send(bytes(300000)); s.settimeout(10)
got, room = 0, bytearray(1 << 20)
while count := s.recv_into(room): got += count
print(s.getsockname()[1], sent, got)`
  const { stdout, stderr } = await world.client.run('python3', ['-c', client], { timeoutMs: 60_000 })
  expect(stderr).toBe('')
  const [port = 0, sent, got] = stdout.split(' ').map(Number)
  expect(got).toBe(2500 * 2 ** 20)
  expect(await endFrom(proxy, port)).toMatchObject({ carried: 'splice', bytes: { sent, received: got } })
  await expectEnd(proxy)
}, 100_000)

test('sequence numbers may wrap', async () => {
  await using proxy = await proxied()
  // Of both ends, and of both of our sockets, wherever they begin: all of it comes back. By a small window, so that what is not
  // believed of one way soon keeps the other from being believed.
  const size = 4500 * MB
  const words = { echo: size, rcvbuf: 200_000, timeout: 20_000 }
  const echoed = await dial(world.client, [addresses[4].origin, 7], words)
  expect(echoed).toMatchObject({ end: 'closed', received: size, equal: true })
  expect(await endFrom(proxy, echoed.port)).toMatchObject({
    carried: 'splice',
    bytes: { sent: size, received: size },
  })
  await expectEnd(proxy)
}, 100_000)
