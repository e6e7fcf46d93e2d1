// A connection waits for its decision in connect(2): what is refused is refused, and what is left alone was never touched.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { expectEnd } from './rig/ending.ts'
import { firewall } from './rig/firewall.ts'
import { endFrom, ends, sessions } from './rig/sessions.ts'
import { addresses, tellRules, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

const MB = 1_000_000

const proxied = (options: { plugin?: string; carry?: 'relay'; timeouts?: Record<string, number> } = {}) =>
  world.proxy({ interfaces: ['wan0'], plugin: 'direct', ...options })

/** From which port the origin has seen connections to one of its own, so far. */
const reachedFrom = (port: number) =>
  world.reached.filter((each) => each.port === port).map(({ fromPort }) => fromPort)

/** Both ends sign their segments (RFC 2385), and believe in nothing that is not signed. */
const signed = `
import socket, struct, sys
origin = sys.argv[1]
family = socket.AF_INET6 if ':' in origin else socket.AF_INET
def sign(s, address):
  packed = socket.inet_pton(family, address)
  name = struct.pack('=HH', family, 0) + (packed if family == socket.AF_INET else bytes(4) + packed)
  s.setsockopt(socket.IPPROTO_TCP, 14, struct.pack('=128sBBHi80s', name, 0, 0, 6, 0, b'secret'))
s = socket.socket(family)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
`

const signedServer = `${signed}
s.bind((origin, 179))
sign(s, '198.51.100.2' if family == socket.AF_INET else '2001:db8:1::2')
s.listen()
print('ready', flush=True)
c = s.accept()[0]
while data := c.recv(100): print(data.decode(), flush=True)
`

const signedClient = `${signed}
sign(s, origin)
s.connect((origin, 179))
s.send(b'first')
input()
s.send(b'second')
print('sent', flush=True)
input()
`

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]

  test('what is direct is left alone: its own port, its bytes and its end', async () => {
    await using proxy = await proxied()
    const echoed = await dial(world.client, [origin, 7], { echo: 3 * MB })
    expect(echoed).toMatchObject({ end: 'closed', received: 3 * MB, equal: true })
    await expect.poll(() => reachedFrom(7)).toContain(echoed.port)
    expect(await endFrom(proxy, echoed.port)).toMatchObject({
      how: 'closed',
      carried: 'splice',
      bytes: { sent: 3 * MB, received: 3 * MB },
    })
    await expectEnd(proxy)
  })

  test.each<[string, Record<string, string>]>([
    ['by default', {}],
    ['by a connection of ours', { plugin: 'dialled' }],
    ['relayed', { carry: 'relay' }],
  ])('a port where nobody listens refuses, %s', async (_, options) => {
    await using proxy = await proxied(options)
    const refused = await dial(world.client, [origin, 4])
    expect(refused.end).toBe('ECONNREFUSED')
    expect(await endFrom(proxy, refused.port)).toMatchObject({
      how: 'failed',
      error: expect.stringMatching(/^connect ECONNREFUSED .*:4$/),
    })
    await expectEnd(proxy)
  })

  test('what a plugin drops refuses, unless it is to be closed in order', async () => {
    await using proxy = await proxied({ plugin: 'dropping' })
    const dropped = await dial(world.client, [origin, 25])
    expect(dropped.end).toBe('ECONNREFUSED')
    expect(await endFrom(proxy, dropped.port)).toMatchObject({ how: 'dropped' })
    expect((await dial(world.client, [origin, 26])).end).toBe('fin')
  })

  test('a decision that takes long is waited for, and asked for once', async () => {
    await using proxy = await proxied({ plugin: 'slow' })
    const echoed = await dial(world.client, [origin, 7], { echo: MB })
    expect(echoed).toMatchObject({ end: 'closed', equal: true })
    expect(echoed.connectMs).toBeGreaterThan(1_400)
    expect(echoed.connectMs).toBeLessThan(1_900)
    expect(await endFrom(proxy, echoed.port)).toMatchObject({ how: 'closed' })
    expect(sessions(proxy)).toHaveLength(1)
  })

  test('a program that gives up meanwhile is not waited for', async () => {
    await using proxy = await proxied({ plugin: 'slow' })
    const gone = await dial(world.client, [origin, 7], { timeout: 200 })
    expect(gone.end).toBe('timeout')
    await sleep(1_700)
    expect(reachedFrom(7)).not.toContain(gone.port)
    expect(sessions(proxy)).toEqual([])
  })

  test('nor one whose handshake with us is lost', async () => {
    await using proxy = await proxied({ plugin: 'dialled' })
    await using _lost = await firewall(world.client, 'input', 'iif lo tcp dport 7 drop')
    const gone = await dial(world.client, [origin, 7], { timeout: 300 })
    expect(gone.end).toBe('timeout')
    expect(await endFrom(proxy, gone.port)).toMatchObject({ how: 'reset', by: 'client' })
    await expectEnd(proxy)
  })

  test('who takes the socket at once has it', async () => {
    await using _proxy = await proxied({ plugin: 'taking' })
    expect(await dial(world.client, [origin, 7])).toMatchObject({ end: 'fin', first: 'taken' })
  })

  test('who takes the socket and answers at length, closes in order', async () => {
    await using _proxy = await proxied({ plugin: 'answering' })
    expect(await dial(world.client, [origin, 7], { slow: 2 })).toMatchObject({ end: 'fin', received: 5 * MB })
  })

  test('one that waits is refused where rules that are to reset say so', async () => {
    await using proxy = await world.proxy({
      interfaces: ['wan0'],
      plugin: 'slow',
      rules: ['proxy tcp dport 7'],
    })
    const dialled = dial(world.client, [origin, 7])
    await sleep(300)
    await tellRules(proxy, { rules: ['drop tcp dport 7'], reset: true })
    const refused = await dialled
    expect(refused.end).toBe('ECONNREFUSED')
    expect(refused.connectMs).toBeLessThan(1_400)
    await sleep(1_500)
    expect(reachedFrom(7)).not.toContain(refused.port)
    expect(sessions(proxy)).toEqual([])
  })

  test('when the proxy is killed, who waits for it is told, and goes nowhere', async () => {
    await using proxy = await world.proxy({ interfaces: ['wan0'], plugin: 'slow' })
    const dialled = dial(world.client, [origin, 7])
    await sleep(300)
    proxy.kill('SIGKILL')
    await proxy.exited
    const aborted = await dialled
    expect(aborted.end).toBe('ECONNABORTED')
    expect(aborted.connectMs).toBeLessThan(900)
    // A SYN is repeated after a second.
    await sleep(1_500)
    expect(reachedFrom(7)).not.toContain(aborted.port)
  })

  test('one whose route changes while it waits goes on waiting', async () => {
    await using proxy = await world.proxy({ interfaces: ['wan0', 'wan1'], plugin: 'slow' })
    const dialled = dial(world.client, [origin, 7], { echo: MB })
    await sleep(300)
    const way = `${family === 4 ? 'ip' : 'ip -6'} route`
    const wan1 = `${origin} via ${family === 4 ? '198.51.100.129' : '2001:db8:3::1'} dev wan1`
    await world.client.sh(`${way} add ${wan1}`)
    try {
      // It is repeated after a second.
      await sleep(900)
    } finally {
      await world.client.sh(`${way} del ${wan1}`)
    }
    expect(await dialled).toMatchObject({ end: 'closed', equal: true })
    expect(sessions(proxy)).toHaveLength(1)
  })

  test('what was left alone, and rules then refuse, says nothing more, also where it believes in no reset', async () => {
    await using server = world.internet.spawn('python3', ['-c', signedServer, origin])
    await server.until(({ stdout }) => stdout.includes('ready'), 'a server')
    await using proxy = await world.proxy({ interfaces: ['wan0'], plugin: 'direct', rules: ['proxy'] })
    await using client = world.client.spawn('python3', ['-c', signedClient, origin])
    await server.until(({ stdout }) => stdout.includes('first'), 'what it says first')
    await tellRules(proxy, { rules: ['drop tcp dport 179'], reset: true })
    client.child.stdin?.write('go\n')
    await client.until(({ stdout }) => stdout.includes('sent'), 'more')
    await sleep(500)
    expect(server.stdout).not.toContain('second')
  })

  test('a socket that is bound to its interface is left alone, too', async () => {
    await using proxy = await proxied()
    const echoed = await dial(world.client, [origin, 7], { echo: MB, device: 'wan0' })
    expect(echoed).toMatchObject({ end: 'closed', equal: true })
    await expect.poll(() => reachedFrom(7)).toContain(echoed.port)
    expect(await endFrom(proxy, echoed.port)).toMatchObject({
      how: 'closed',
      bytes: { sent: MB, received: MB },
    })
  })

  test('a connection that nobody answers fails after its time, and its program hears of it', async () => {
    await using proxy = await proxied({ timeouts: { connectMs: 300 } })
    await world.internet.sh(
      `PATH=$PATH:/usr/sbin; nft 'add table inet hole; add chain inet hole in { type filter hook input priority 0; }; add rule inet hole in tcp dport 5 drop'`,
    )
    try {
      const failed = await dial(world.client, [origin, 5])
      expect(failed.end).toBe('ECONNREFUSED')
      expect(failed.connectMs).toBeGreaterThan(250)
      expect(await endFrom(proxy, failed.port)).toMatchObject({
        how: 'failed',
        error: expect.stringContaining('no answer within 300 ms'),
      })
    } finally {
      await world.internet.sh('PATH=$PATH:/usr/sbin; nft delete table inet hole')
    }
  })

  test('when the proxy closes, both ends of what was left alone are reset', async () => {
    await using proxy = await proxied({ timeouts: { drainMs: 100 } })
    const before = world.origin.events.length
    const held = await holdDial(world.client, [origin, 7], { send: 'x', read: 2 })
    await sleep(200)
    expect(await proxy.stop()).toMatchObject({ code: 0 })
    const cut = await held.release()
    expect(cut.end).toBe('ECONNRESET')
    expect(await endFrom(proxy, cut.port)).toMatchObject({ how: 'aborted' })
    await world.origin.until(
      ({ events }) =>
        events.slice(before).some(({ code, fromPort }) => code === 'ECONNRESET' && fromPort === cut.port),
      'a reset at the origin',
    )
  })

  test('when the proxy is killed, what was left alone goes on', async () => {
    await using proxy = await proxied()
    const held = await holdDial(world.client, [origin, 7], { echo: MB })
    await proxy.until(() => sessions(proxy).length === 1, 'a session')
    // The origin has heard it, too.
    await sleep(100)
    proxy.kill('SIGKILL')
    await proxy.exited
    expect(await held.release()).toMatchObject({ end: 'closed', equal: true, received: MB })
  })

  test('what moves nothing ends after its time', async () => {
    await using proxy = await proxied({ timeouts: { idleMs: 500 } })
    const held = await holdDial(world.client, [origin, 7], { read: 1 })
    await proxy.until(() => ends(proxy).length === 1, 'an end', 12_000)
    expect(ends(proxy)[0]).toMatchObject({ how: 'timeout', bytes: { sent: 0, received: 0 } })
    expect((await held.release()).end).toBe('ECONNRESET')
  })

  test('and which counts for its rule', async () => {
    await using proxy = await world.proxy({
      interfaces: ['wan0'],
      plugin: 'direct',
      rules: ['proxy tcp dport 7'],
    })
    await dial(world.client, [origin, 7], { echo: MB })
    const { counts } = await tellRules(proxy, {})
    expect(counts?.[1]?.[1]).toBeGreaterThan(MB)
  })
})
