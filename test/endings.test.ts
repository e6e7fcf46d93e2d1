import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Dial, dial, holdDial } from './rig/client.ts'
import { firewall } from './rig/firewall.ts'
import type { Program } from './rig/host.ts'
import { addresses, memory, type ProxyProgramOptions, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world.close())

/** Runs `body` with a proxy, which ends in order. */
async function withProxy(
  options: ProxyProgramOptions,
  body: (proxy: Program) => Promise<void>,
): Promise<void> {
  await using proxy = await world.proxy({ interfaces: ['wan0'], ...options })
  await body(proxy)
  await proxy.stop()
  expect(proxy.events.filter(({ event }) => event === 'uncaught')).toEqual([])
}

/** What the origin says of connections to one of its ports. */
function originSays(event: string, port: number): Record<string, unknown>[] {
  return world.origin.events.filter((it) => it.event === event && it.port === port)
}

/** What a program hears of a proxy that was killed. Until our sockets are silent, theirs is the first to tell it, by a reset. */
const brokenOff = { splice: /^ECONN(ABORTED|RESET)$/, relay: /^ECONNRESET$/ }

/** The bytes of `done` and so many ticks of port 1003. */
const ticks = (seconds: number) => seconds * 5 + 5

describe('one direction ends and the other goes on', () => {
  let proxy: Program
  beforeAll(async () => {
    proxy = await world.proxy({ interfaces: ['wan0'] })
  })
  afterAll(async () => {
    await proxy.stop()
    expect(proxy.events.filter(({ event }) => event === 'uncaught')).toEqual([])
  })

  describe.concurrent.each([4, 6] as const)('over IPv%i', (family) => {
    const { origin } = addresses[family]

    test('a client that ends its direction with its first bytes hears the server for 30 s more', async ({
      expect,
    }) => {
      const result = await dial(world.client, [origin, 1003], { send: '30\n', shutdown: true })
      expect(result).toMatchObject({ end: 'fin', received: ticks(30), first: expect.stringMatching(/^tick/) })
    })

    test('a client that ends its direction later than its last byte hears the server for 30 s more', async ({
      expect,
    }) => {
      const { stdout, stderr } = await world.client.run(
        'python3',
        [
          '-c',
          `
import socket, time
s = socket.create_connection(('${origin}', 1003), 5)
s.sendall(b'30\\n'); time.sleep(1); s.shutdown(socket.SHUT_WR)
got = b''
while data := s.recv(100): got += data
print(len(got), got.endswith(b'done\\n'))`,
        ],
        { timeoutMs: 45_000 },
      )
      expect(stderr).toBe('')
      expect(stdout).toBe(`${ticks(30)} True\n`)
    })

    test('a server that ends its direction first hears the client for 5 s more', async ({ expect }) => {
      const { stdout, stderr } = await world.client.run('python3', [
        '-c',
        `
import socket, time
s = socket.create_connection(('${origin}', 1002), 5)
got = b''
while data := s.recv(4096): got += data
for i in range(10): s.sendall(b'y' * ${1000 + family}); time.sleep(0.5)
s.shutdown(socket.SHUT_WR)
print(len(got))`,
      ])
      expect(stderr).toBe('')
      expect(stdout).toBe('1024\n')
      const heard = (1000 + family) * 10
      await world.origin.until(
        ({ events }) => events.some(({ event, length }) => event === 'listened' && length === heard),
        `${heard} bytes heard`,
      )
    })
  })
})

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin, url } = addresses[family]
  const to = (port: number, options: Dial = {}) => dial(world.client, [origin, port], options)

  test('a reset by the client reaches the server as a reset', () =>
    withProxy({}, async (proxy) => {
      const before = originSays('error', 7).length
      await to(7, { send: 'x', reset: true })
      await world.origin.until(() => originSays('error', 7).length > before, 'an error at the server')
      expect(originSays('error', 7).at(-1)).toMatchObject({ code: 'ECONNRESET' })
      await proxy.until(({ events }) => events.some(({ event }) => event === 'end'), 'an end')
      expect(proxy.events.find(({ event }) => event === 'end')).toMatchObject({ how: 'reset', by: 'client' })
    }))

  test('a reset by the server reaches the client as a reset', () =>
    withProxy({}, async (proxy) => {
      expect(await to(1001, { send: 'x' })).toMatchObject({ end: 'ECONNRESET', received: 0 })
      await proxy.until(({ events }) => events.some(({ event }) => event === 'end'), 'an end')
      expect(proxy.events.find(({ event }) => event === 'end')).toMatchObject({
        how: 'reset',
        by: 'upstream',
      })
    }))

  test('a peer of a relayed connection that vanishes is asked for on both legs', () =>
    withProxy({ carry: 'relay' }, async (proxy) => {
      const held = await holdDial(world.client, [origin, 7], { echo: 1000 })
      await proxy.until(({ events }) => events.some(({ event }) => event === 'session'), 'a session')
      const sockets = await world.client.sh("ss -Htno state established '( sport = :7 or dport = :7 )'")
      const asking = /timer:\(keepalive,(\d\dsec|1min)/
      const ours = sockets
        .trim()
        .split('\n')
        .filter((line) => asking.test(line))
      // The program itself does not ask.
      expect([sockets.trim().split('\n').length, ours.length]).toEqual([3, 2])
      expect(await held.release()).toMatchObject({ end: 'closed', received: 1000, equal: true })
    }))

  test('a program that is killed in relayed downloads ends them: nobody goes on receiving', () =>
    withProxy({ carry: 'relay', plugin: 'direct' }, async (proxy) => {
      await using endless = world.internet.spawn('python3', [
        '-uc',
        `
import socket, threading
def speak(s):
  try:
    while True: s.sendall(bytes(1 << 16))
  except OSError: pass
listener = socket.create_server(('::', 2009), family=socket.AF_INET6, dualstack_ipv6=True)
print('ready')
while True: threading.Thread(target=speak, args=(listener.accept()[0],), daemon=True).start()`,
      ])
      await endless.until(({ stdout }) => stdout.includes('ready'), 'a server')
      const before = (await memory(world.client, proxy.pid)).fds
      await using program = world.client.spawn('python3', [
        '-c',
        `
import select, socket
sockets = [socket.create_connection(('${addresses[family].origin}', 2009)) for _ in range(16)]
while True:
  for s in select.select(sockets, [], [])[0]: s.recv(1 << 20)`,
      ])
      const open = async () => (await memory(world.client, proxy.pid)).fds
      await expect.poll(open, { timeout: 5000 }).toBe(before + 32)
      await sleep(200)
      program.kill('SIGKILL')
      await expect.poll(open, { timeout: 3000 }).toBe(before)
      expect(await world.internet.sh('ss -Htn state connected sport = :2009')).toBe('')
    }))

  test('a drop refuses, or is an ordinary end where the plugin wants it so; others go on', () =>
    withProxy({ plugin: 'dropping' }, async () => {
      const [reset, end, echoed] = await Promise.all([to(25), to(26), to(7, { echo: 10_000 })])
      expect(reset).toMatchObject({ end: 'ECONNREFUSED', received: 0 })
      expect(end).toMatchObject({ end: 'fin', received: 0 })
      expect(echoed).toMatchObject({ received: 10_000, equal: true })
      expect([...originSays('connection', 25), ...originSays('connection', 26)]).toEqual([])
    }))

  test('a plugin that throws, never answers or answers nonsense costs its own connection only', () =>
    withProxy({ plugin: 'failing', timeouts: { decisionMs: 500 } }, async (proxy) => {
      const started = performance.now()
      const [throwing, silent, nonsense, echoed] = await Promise.all([
        ...[1, 2, 3].map((port) => to(port)),
        to(7, { echo: 10_000 }),
      ])
      expect(performance.now() - started).toBeLessThan(3000)
      for (const result of [throwing, silent, nonsense])
        expect(result).toMatchObject({ end: 'ECONNREFUSED', received: 0 })
      expect(echoed).toMatchObject({ received: 10_000, equal: true })
      const { stdout } = await world.client.run('curl', ['-sS', `http://${url}/after`])
      expect(stdout).toMatch(/^GET \/after/)
      expect(proxy.events.filter(({ event }) => event === 'warning').length).toBeGreaterThanOrEqual(3)
    }))

  test.each(['splice', 'relay'] as const)(
    'a proxy that is killed in the middle of a transfer by %s breaks it off: the client sees no clean end',
    async (carry) => {
      await using proxy = await world.proxy({ interfaces: ['wan0'], carry })
      // Slower than any machine sends.
      const transfer = to(19, { send: '2000000000', slow: 10 })
      await proxy.until(({ events }) => events.some(({ event }) => event === 'session'), 'a session')
      await sleep(300)
      await proxy.stop('SIGKILL')
      const { end, received } = await transfer
      expect(end).toMatch(brokenOff[carry])
      expect(received).toBeGreaterThan(0)
      expect(received).toBeLessThan(2_000_000_000)
      // And nothing of it is in the way of the next connection.
      const { stdout } = await world.client.run('curl', ['-sS', '-m', '5', `http://${url}/after`])
      expect(stdout).toMatch(/^GET \/after/)
    },
  )

  test.each(['splice', 'relay'] as const)(
    'a proxy that is killed in the middle of an upload by %s breaks it off: the server sees no clean end',
    async (carry) => {
      await using proxy = await world.proxy({ interfaces: ['wan0'], carry })
      const before = world.origin.events.length
      const transfer = to(9, { send: 'x'.repeat(100_000), read: 1, timeout: 20_000 })
      await proxy.until(({ events }) => events.some(({ event }) => event === 'session'), 'a session')
      await sleep(300)
      await proxy.stop('SIGKILL')
      expect((await transfer).end).toMatch(brokenOff[carry])
      const its = ({ events }: Program) => events.slice(before).filter(({ port }) => port === 9)
      await world.origin.until((it) => its(it).length > 1, 'its end at the origin')
      expect(its(world.origin)).toMatchObject([
        { event: 'connection' },
        { event: 'error', code: 'ECONNRESET' },
      ])
    },
  )

  test.each(['splice', 'relay'] as const)(
    'of what was on its way by %s when its proxy was killed, nothing leaves by itself',
    async (carry) => {
      await using proxy = await world.proxy({ interfaces: ['wan0'], carry })
      const bind = (carry === 'splice' ? 30_100 : 30_200) + family
      const held = await holdDial(world.client, [origin, 7], { bind, echo: 2_000_000_000 })
      await proxy.until(({ events }) => events.some(({ event }) => event === 'session'), 'a session')
      await sleep(100)
      // What it sends is not acknowledged from now on, and would be sent again.
      await using _left = await firewall(
        world.internet,
        'prerouting',
        `tcp sport ${bind} counter`,
        'tcp dport 7 meta length > 100 drop',
      )
      const transfer = held.release()
      await sleep(100)
      await proxy.stop('SIGKILL')
      // Who hears of it first, reading or writing, is told, and the other sees an end.
      const { end, broken } = await transfer
      expect(broken || brokenOff[carry].test(end)).toBe(true)
      await sleep(1_500)
      expect(await world.internet.sh('/usr/sbin/nft list ruleset')).toContain('counter packets 0 ')
    },
  )

  test('a transfer that runs at SIGTERM finishes within the drain time', async () => {
    await using proxy = await world.proxy({ interfaces: ['wan0'] })
    const transfer = to(19, { send: '80000000', slow: 1 })
    await proxy.until(({ events }) => events.some(({ event }) => event === 'session'), 'a session')
    await sleep(100)
    expect(proxy.events.some(({ event }) => event === 'end')).toBe(false)
    proxy.kill()
    expect(await transfer).toMatchObject({ end: 'fin', received: 80_000_000 })
    expect((await proxy.exited).code).toBe(0)
    expect(proxy.events.at(-1)).toMatchObject({ event: 'closed' })
    expect(proxy.events.find(({ event }) => event === 'end')).toMatchObject({ how: 'closed' })
  })

  test('connections that wait for a decision at SIGTERM are served, and their ends are told', async () => {
    const count = 20
    await using proxy = await world.proxy({ interfaces: ['wan0'] })
    proxy.kill('SIGSTOP')
    const transfers = Promise.all(Array.from({ length: count }, () => to(7, { echo: 100_000 })))
    const waiting = async () => Number(await world.client.sh('ss -Hnt state syn-sent | wc -l'))
    await expect.poll(waiting, { timeout: 5000 }).toBe(count)
    proxy.kill('SIGTERM')
    proxy.kill('SIGCONT')
    for (const transfer of await transfers)
      expect(transfer).toMatchObject({ end: 'closed', received: 100_000, equal: true })
    expect((await proxy.exited).code).toBe(0)
    const told = (name: string) => proxy.events.filter(({ event }) => event === name)
    expect(told('session')).toHaveLength(count)
    expect(told('end').map(({ how }) => how)).toEqual(Array(count).fill('closed'))
  })

  test('a transfer that outlives the drain time is reset', async () => {
    await using proxy = await world.proxy({ interfaces: ['wan0'], timeouts: { drainMs: 300 } })
    const transfer = to(19, { send: '2000000000', slow: 1 })
    await proxy.until(({ events }) => events.some(({ event }) => event === 'session'), 'a session')
    const stopped = performance.now()
    proxy.kill()
    expect((await transfer).end).toBe('ECONNRESET')
    expect((await proxy.exited).code).toBe(0)
    expect(performance.now() - stopped).toBeLessThan(3000)
  })
})
