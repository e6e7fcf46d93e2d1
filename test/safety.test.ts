import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { holdConnections } from './rig/crowd.ts'
import { firewall } from './rig/firewall.ts'
import { fixture } from './rig/fixture.ts'
import { mapEntries, openFiles, processorMs, residentMb } from './rig/process.ts'
import { endFrom, sessionFrom, sessions, warnings } from './rig/sessions.ts'
import { withProxy } from './rig/with-proxy.ts'
import { addresses, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

describe.each([4, 6] as const)('a plugin that fails, over IPv%i', (family) => {
  const { origin } = addresses[family]
  const proxy = withProxy(() => world, { plugin: 'failing', timeouts: { decisionMs: 1000 } })

  test('by an exception, by silence or by nonsense costs its own connection, which is refused', async () => {
    const reached = world.reached.length
    const held = await holdDial(world.client, [origin, 7], { echo: 100_000 })
    await expect.poll(() => world.reached.length).toBe(reached + 1)
    const start = performance.now()
    const [thrown, silent, nonsense] = await Promise.all(
      [1, 2, 3].map((port) => dial(world.client, [origin, port])),
    )
    expect([thrown?.end, silent?.end, nonsense?.end]).toEqual([
      'ECONNREFUSED',
      'ECONNREFUSED',
      'ECONNREFUSED',
    ])
    // The silent one was waited for until its deadline, and not much longer.
    expect(silent?.connectMs).toBeGreaterThan(900)
    expect(performance.now() - start).toBeLessThan(2500)
    for (const { port } of [thrown, silent, nonsense].filter((it) => it !== undefined))
      expect(await endFrom(proxy(), port)).toMatchObject({
        how: 'dropped',
        error: expect.stringContaining('failing'),
      })
    expect(warnings(proxy())).toEqual(
      expect.arrayContaining([
        expect.stringContaining('plugin failing failed: broken on purpose'),
        expect.stringContaining('plugin failing gave no verdict within 1000 ms'),
        expect.stringContaining('plugin failing returned something that is no verdict'),
      ]),
    )
    expect(world.reached).toHaveLength(reached + 1)
    expect(await held.release()).toMatchObject({ end: 'closed', equal: true, received: 100_000 })
  })

  test('a hundred at once, without a word, costs nobody else a connection', async () => {
    const silent = Promise.all(
      Array.from({ length: 100 }, () => dial(world.client, [origin, 2], { timeout: 10_000 })),
    )
    const others = await Promise.all(
      Array.from({ length: 20 }, () => dial(world.client, [origin, 7], { echo: 10_000 })),
    )
    expect(others.filter(({ equal, end }) => !equal || end !== 'closed')).toEqual([])
    expect(new Set((await silent).map(({ end }) => end))).toEqual(new Set(['ECONNREFUSED']))
  })
})

describe.each([4, 6] as const)('drop, over IPv%i', (family) => {
  const { origin } = addresses[family]
  const proxy = withProxy(() => world, { plugin: 'dropping' })

  test('with a reset shows the program that it is refused, without one an end in order', async () => {
    const before = world.reached.length
    const withReset = await dial(world.client, [origin, 25], { send: 'EHLO', timeout: 3000 })
    expect(withReset).toMatchObject({ end: 'ECONNREFUSED', received: 0 })
    const inOrder = await dial(world.client, [origin, 26], { send: 'EHLO', shutdown: true, timeout: 3000 })
    expect(inOrder).toMatchObject({ end: 'fin', received: 0 })
    for (const { port } of [withReset, inOrder])
      expect(await endFrom(proxy(), port)).toMatchObject({ how: 'dropped' })
    expect(world.reached).toHaveLength(before)
  })
})

describe.each([4, 6] as const)('a destination that does not answer, over IPv%i', (family) => {
  const { origin } = addresses[family]
  const proxy = withProxy(() => world, { timeouts: { connectMs: 1000 } })

  test('refuses after the deadline, and leaves no file open', async () => {
    await using _ = await firewall(world.internet, 'input', 'tcp dport 4444 drop')
    const files = openFiles(proxy().pid)
    const result = await dial(world.client, [origin, 4444])
    expect(result.end).toBe('ECONNREFUSED')
    expect(result.connectMs).toBeGreaterThan(900)
    expect(result.connectMs).toBeLessThan(2000)
    const error = expect.stringContaining('no answer within 1000 ms')
    expect(await endFrom(proxy(), result.port)).toMatchObject({ how: 'failed', error })
    await expect.poll(() => openFiles(proxy().pid)).toBe(files)
  })

  test('a client that gives up while the proxy connects leaves nothing behind', async () => {
    await using _ = await firewall(world.internet, 'input', 'tcp dport 4444 drop')
    const files = openFiles(proxy().pid)
    const results = await Promise.all(
      Array.from({ length: 20 }, () => dial(world.client, [origin, 4444], { timeout: 100 })),
    )
    expect(new Set(results.map(({ end }) => end))).toEqual(new Set(['timeout']))
    expect(sessions(proxy())).toHaveLength(20)
    await expect.poll(() => openFiles(proxy().pid)).toBe(files)
  })
})

describe.each([4, 6] as const)('the listeners, over IPv%i', (family) => {
  const loopback = { 4: ['127.0.0.1', '::ffff:127.0.0.1'], 6: ['::1'] }[family]
  const { client } = addresses[family]
  const proxy = withProxy(() => world, {})

  const listeners = async () => {
    const listening = await world.client.sh(`ss -H${family}ltnp`)
    const own = [...listening.matchAll(/:(\d+) .*pid=(\d+)/g)].filter(
      ([, , pid]) => Number(pid) === proxy().pid,
    )
    return own.map(([, port]) => Number(port))
  }

  test('dialled directly are closed at once, and keep no file open', async () => {
    const ports = await listeners()
    expect(ports.length).toBeGreaterThan(0)
    const files = openFiles(proxy().pid)
    const targets = ports.flatMap((port) => loopback.map((address) => [address, port] as const))
    const ends = targets.flatMap((target) =>
      Array.from({ length: 25 }, () => dial(world.client, target, { send: 'GET / HTTP/1.0', timeout: 3000 })),
    )
    expect(new Set((await Promise.all(ends)).map(({ end }) => end))).toEqual(new Set(['ECONNRESET']))
    await expect.poll(() => openFiles(proxy().pid)).toBe(files)
    expect(sessions(proxy())).toEqual([])
  })

  test('cannot be reached from other hosts', async () => {
    for (const port of await listeners())
      expect((await dial(world.internet, [client, port], { timeout: 2000 })).end).toBe('ECONNREFUSED')
    expect(sessions(proxy())).toEqual([])
  })
})

describe.each([4, 6] as const)('a flood of SYNs from raw sockets, over IPv%i', (family) => {
  const { origin } = addresses[family]
  const proxy = withProxy(() => world, {})

  test('costs no file, no connection, and no entry of those that wait to be accepted', async () => {
    // The kernel resets what no socket of its own asked for; without that the half-open connections stay.
    await using _ = await firewall(world.client, 'output', 'tcp flags rst drop')
    const before = { files: openFiles(proxy().pid), memory: residentMb(proxy().pid) }
    const { stdout } = await world.client.run(await fixture('flood'), [origin, '22', '10000'])
    expect(stdout).toContain('"sent":10000')
    const halfOpen = Number(await world.client.sh(`ss -H${family}ant state syn-recv | wc -l`))
    // The backlog is full, all of it: who comes now gets a SYN cookie, and is served like anybody else.
    expect(halfOpen).toBeGreaterThanOrEqual(Number(await world.client.sh('cat /proc/sys/net/core/somaxconn')))
    expect(await mapEntries(world.client, proxy(), 'flows')).toBe(0)
    const results = await Promise.all(
      Array.from({ length: 20 }, () => dial(world.client, [origin, 7], { echo: 5000 })),
    )
    for (const result of results) {
      expect(result).toMatchObject({ end: 'closed', equal: true, received: 5000 })
      expect(result.connectMs).toBeLessThan(900)
    }
    for (const { port } of results)
      expect(await sessionFrom(proxy(), port)).toMatchObject({ process: { name: 'client' } })
    expect(sessions(proxy())).toHaveLength(20)
    await expect.poll(() => openFiles(proxy().pid)).toBe(before.files)
    expect(residentMb(proxy().pid) - before.memory).toBeLessThan(20)
  })
})

describe.each([4, 6] as const)('file descriptors that run out, over IPv%i', (family) => {
  const { origin } = addresses[family]

  test('cost the connections beyond the limit only; the proxy does not spin, and recovers', async () => {
    const program = fileURLToPath(new URL('./rig/proxy.ts', import.meta.url))
    const limited = 'ulimit -n 400; exec "$@"'
    const words = [process.execPath, '--conditions=@tproxy/source', program, '{"interfaces":["wan0"]}']
    await using small = world.client.spawn('bash', ['-c', limited, 'limited', ...words])
    await small.until((it) => it.events.some(({ event }) => event === 'ready'), 'the proxy to be ready')
    const files = openFiles(small.pid)
    const crowd = await holdConnections(world.client, { address: origin, port: 7, count: 200, parallel: 20 })
    const used = processorMs(small.pid)
    await sleep(1000)
    expect(processorMs(small.pid) - used).toBeLessThan(150)
    expect(warnings(small).some((message) => message.includes('as many as file descriptors allow'))).toBe(
      true,
    )
    const { succeeded, failed, unanswered } = await crowd.exchange()
    // 400 less the reserve of 256, and two for each connection until it is spliced, then one.
    expect(succeeded).toBeGreaterThanOrEqual(72)
    expect({ all: succeeded + failed, unanswered }).toEqual({ all: 200, unanswered: 0 })
    await expect.poll(() => openFiles(small.pid)).toBe(files)
    const result = await dial(world.client, [origin, 7], { echo: 5000 })
    expect(result).toMatchObject({ end: 'closed', equal: true })
    expect(await small.stop()).toMatchObject({ code: 0 })
    expect(small.events.filter(({ event }) => event === 'uncaught')).toEqual([])
  })
})
