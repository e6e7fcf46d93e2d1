import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { holdConnections, shortConnections } from './rig/crowd.ts'
import { firewall } from './rig/firewall.ts'
import { fixture } from './rig/fixture.ts'
import type { Host, Program } from './rig/host.ts'
import { microsocks } from './rig/servers.ts'
import { endFrom } from './rig/sessions.ts'
import { digest, generate } from './rig/stream.ts'
import { addresses, tellRules, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

const MB = 1_000_000

/** With a proxy that intercepts wan0 and carries connections as `carry` says. */
async function proxied(options: { carry?: 'splice' | 'relay'; timeouts?: Record<string, number> } = {}) {
  return world.proxy({ interfaces: ['wan0'], ...options })
}

async function expectEnd(proxy: Program): Promise<void> {
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
  expect(proxy.events.filter(({ event }) => event === 'uncaught' || event === 'warning')).toEqual([])
}

/** tproxy-run on wan0, with a SOCKS server at port 1080 of this address. */
async function throughSocks(address: string): Promise<Program> {
  const url = `socks5://${address.includes(':') ? `[${address}]` : address}:1080`
  const program = world.run(['--json', '-i', 'wan0', '-p', `socks=${url}`], { input: '' })
  await program.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line')
  return program
}

/** Puts so many bytes by HTTP to the origin, which says what it got; and gets as many. */
async function upAndDown(url: string, size: number): Promise<{ up: string; down: string }> {
  const script = `${generate(size)} | curl -sS -m 30 -T - ${url}/up; curl -sS -m 30 ${url}/bytes/${size} | sha256sum`
  const [up = '', down = ''] = (await world.client.sh(script)).split('\n')
  return { up, down: down.split(' ')[0] ?? '' }
}

/** What {@link upAndDown} has to say. */
function expected(size: number): { up: string; down: string } {
  return { up: digest(size), down: createHash('sha256').update(Buffer.alloc(size, 'x')).digest('hex') }
}

/** Sends so many bytes to the origin, which says what it got. */
async function sendUp(size: number): Promise<{ stdout: string }> {
  const client = await fixture('client')
  const pipe = `${generate(size)} | ${client} --pipe --timeout 60000 ${addresses[4].origin} 9 2>/dev/null`
  return world.client.run('bash', ['-c', pipe], { timeoutMs: 80_000 })
}

const digestOf = (text: string) => createHash('sha256').update(text).digest('hex')

/**
 * Says hello, and puts what was steered on lo there once more, with its mark, when the kernel carries the connection: as if it
 * had been held up on its way. Then ends its direction, and prints what the server says.
 */
const late = `
import socket, struct, sys, time
origin, port = sys.argv[1], int(sys.argv[2])
lo = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
lo.bind(('lo', 0))
lo.settimeout(3)
lo.setsockopt(socket.SOL_SOCKET, 36, 0x74700000)
s = socket.create_connection((origin, port), 3)
s.sendall(b'hello')
frame = b''
while not frame.endswith(b'hello'): frame = lo.recv(2000)
# Its checksum is that of the addresses only: the rest was left to the interface, which it does not pass again.
tcp, addresses = (54, 32) if ':' in origin else (34, 8)
before, behind = frame[:tcp + 16], frame[tcp + 18:]
words = before[tcp - addresses:] + behind + b'\\0' * (len(behind) % 2) + struct.pack('!HH', 6, len(frame) - tcp)
total = sum(struct.unpack('!%dH' % (len(words) // 2), words))
frame = before + struct.pack('!H', ~(total + (total >> 16)) & 0xffff) + behind
time.sleep(0.02)
for i in range(3): lo.send(frame)
time.sleep(0.3)
s.shutdown(socket.SHUT_WR)
print(s.makefile().read(), end='')
`

/** Says by a raw socket, in the name of one address and port to another, that connections end: from anywhere but where one is. */
const forged = `
import random, socket, struct, sys
source, destination = sys.argv[1:3]
ports = [int(port) for port in sys.argv[3:5]]
family = socket.AF_INET6 if ':' in source else socket.AF_INET
s = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
s.bind((source, 0))
addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
for flags in (0x04, 0x14, 0x11):
  for _ in range(4):
    segment = struct.pack('!HHIIBBHHH', *ports, random.getrandbits(32), random.getrandbits(32), 0x50, flags, 512, 0, 0)
    total = sum(struct.unpack('!%dH' % (len(addresses) // 2 + 12), addresses + struct.pack('!HH', 6, 20) + segment))
    total = (total & 0xffff) + (total >> 16)
    s.sendto(segment[:16] + struct.pack('!HH', ~(total + (total >> 16)) & 0xffff, 0), (destination, 0))
`

/** Has something echoed, and rests. */
const resting = `
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)
s.sendall(b'hello')
s.recv(5)
print('heard', flush=True)
time.sleep(60)
`

/** Takes next to nothing, and says something all the time. */
const stuffed = `
import socket, time
listener = socket.socket(socket.AF_INET6)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
listener.bind(('::', 2011))
listener.listen()
print('ready', flush=True)
while True:
  s = listener.accept()[0]
  try:
    while True:
      s.send(b'tick')
      time.sleep(0.05)
  except OSError as error: print(type(error).__name__, flush=True)
`

/** Says more at once than the server takes, then only listens, and prints what ends that. */
const insistent = `
import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
s.connect((sys.argv[1], 2011))
s.setblocking(False)
s.send(bytes(50_000))
s.settimeout(5)
heard = 0
try:
  while data := s.recv(100):
    heard += len(data)
    if heard > 40: print('heard', flush=True)
except OSError as error: print(type(error).__name__)
`

/** Packets and bytes that an interface of the client has sent. */
async function sentBy(name: string): Promise<{ packets: number; bytes: number }> {
  const [{ stats64 }] = JSON.parse(await world.client.sh(`ip -s -j link show ${name}`))
  return stats64.tx
}

const ends = (program: Program) => program.events.filter(({ event }) => event === 'end')

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

  test('a segment that comes late to where the process had accepted it ends nothing', async () => {
    await using proxy = await proxied()
    const { stdout, stderr } = await world.client.run('python3', ['-c', late, origin, '9'])
    expect({ stdout, stderr }).toEqual({ stdout: `${digestOf('hello')} 5\n`, stderr: '' })
    await proxy.until((program) => ends(program).length > 0, 'the end')
    expect(ends(proxy)).toMatchObject([{ how: 'closed', carried: 'splice' }])
    await expectEnd(proxy)
  })

  test('what somebody says who cannot know where it is ends nothing', async () => {
    await using proxy = await proxied()
    const held = await holdDial(world.client, [origin, 7], { echo: MB })
    await sleep(300)
    const peers = await world.internet.sh(`ss -Htn state established sport = :7`)
    const [, address, port] = /(?:\[::ffff:|\[)?([\da-f.:]+?)\]?:(\d+)\s*$/.exec(peers) ?? []
    const words = ['-c', forged, origin, `${address}`, '7', `${port}`]
    expect(await world.internet.run('python3', words)).toMatchObject({ code: 0, stderr: '' })
    await sleep(100)
    const echoed = await held.release()
    expect(echoed).toMatchObject({ end: 'closed', received: MB, equal: true })
    expect(await endFrom(proxy, echoed.port)).toMatchObject({
      how: 'closed',
      carried: 'splice',
      bytes: { sent: MB, received: MB },
    })
    await expectEnd(proxy)
  })

  test('our socket that keeps its port waits for nothing, or it would give up one day', async () => {
    await using proxy = await proxied()
    // The server's answer acknowledges what the process passed on, and goes to the program alone.
    await using client = world.client.spawn('python3', ['-c', resting, origin, '7'])
    await client.until(({ stdout }) => stdout.includes('heard'), 'an answer')
    const waiting = () => world.client.sh(`ss -Htno dport = :7 | grep 'timer:(on' || true`)
    await expect.poll(waiting, { timeout: 8000, interval: 500 }).toBe('')
    expect((await world.client.sh('ss -Htn dport = :7')).trim().split('\n')).toHaveLength(2)
    client.kill()
    await proxy.until((program) => ends(program).length > 0, 'the end')
    expect(ends(proxy)).toMatchObject([{ carried: 'splice' }])
    await expectEnd(proxy)
  })

  test('one that is closed while the process still relays what the upstream does not take is reset on both sides', async () => {
    await using server = world.internet.spawn('python3', ['-c', stuffed])
    await server.until(({ stdout }) => stdout.includes('ready'), 'a server')
    const buffers = (await world.client.sh('sysctl -n net.ipv4.tcp_wmem')).trim()
    // Small windows are spliced when they are not scaled.
    await world.client.sh(`sysctl -qw net.ipv4.tcp_window_scaling=0 net.ipv4.tcp_wmem='4096 4096 4096'`)
    try {
      // While it hesitates, more comes than fits into its socket to the upstream.
      await using proxy = await world.proxy({ interfaces: ['wan0'], plugin: 'hesitating' })
      await using client = world.client.spawn('python3', ['-c', insistent, origin])
      await client.until(({ stdout }) => stdout.includes('heard'), 'what the server says')
      await tellRules(proxy, { rules: ['direct tcp'], reset: true })
      expect((await client.exited).stdout.trim().split('\n').at(-1)).toBe('ConnectionResetError')
      await server.until(({ stdout }) => stdout.includes('ConnectionResetError'), 'a reset')
      expect(ends(proxy)).toMatchObject([{ how: 'aborted' }])
      await expectEnd(proxy)
    } finally {
      await world.client.sh(`sysctl -qw net.ipv4.tcp_window_scaling=1 net.ipv4.tcp_wmem='${buffers}'`)
    }
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
      await using _in = await firewall(world.client, 'output', `numgen random mod 100 < ${percent} drop`)
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

  test('many that talk at once lose nothing and are all spliced', async () => {
    await using proxy = await proxied()
    const result = await shortConnections(world.client, {
      address: origin,
      port: 7,
      count: 3000,
      parallel: 100,
    })
    expect(result).toMatchObject({ succeeded: 3000, failed: 0, unanswered: 0 })
    const { held, exchange } = await holdConnections(world.client, {
      address: origin,
      port: 7,
      count: 1000,
      parallel: 50,
    })
    expect(held).toBe(1000)
    expect(await exchange()).toMatchObject({ succeeded: 1000, failed: 0, unanswered: 0 })
    await proxy.until((program) => ends(program).length === 4000, 'their ends', 10_000)
    const relayed = ends(proxy).filter(({ carried }) => carried !== 'splice')
    expect(relayed).toEqual([])
    await expectEnd(proxy)
  }, 60_000)

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

test('an upstream whose path translates our addresses is relayed to', async () => {
  await using _server = await microsocks(world.internet, '198.51.100.1', 1080)
  await world.client.sh(`nft -f - <<'END'
    table inet translated {
      chain out { type nat hook postrouting priority 100; tcp dport 1080 masquerade random; }
    }
END`)
  try {
    await using program = await throughSocks('198.51.100.1')
    expect(await upAndDown(`http://${addresses[4].url}`, 5 * MB)).toEqual(expected(5 * MB))
    const sessions = () => program.events.filter(({ event }) => event === 'session-end')
    await program.until(() => sessions().length === 2, 'both ends')
    expect(sessions().map(({ carried }) => carried)).toEqual(['relay', 'relay'])
    expect(await program.stop()).toMatchObject({ code: 0 })
  } finally {
    await world.client.sh('nft delete table inet translated')
  }
})

test('sequence numbers may wrap', async () => {
  await using proxy = await proxied()
  const size = 4500 * MB
  const { stdout } = await sendUp(size)
  expect(stdout).toBe(`${digest(size)} ${size}\n`)
  await proxy.until((program) => ends(program).length === 1, 'the end')
  expect(ends(proxy)).toMatchObject([{ carried: 'splice', bytes: { sent: size } }])
  await expectEnd(proxy)
}, 100_000)

describe.each<[string, string, (world: World) => Host, string]>([
  ['elsewhere', '198.51.100.1', ({ internet }) => internet, addresses[4].origin],
  ['elsewhere', '2001:db8:1::1', ({ internet }) => internet, addresses[6].origin],
  ['on this host', '127.0.0.1', ({ client }) => client, addresses[4].origin],
  ['on this host', '::1', ({ client }) => client, addresses[6].origin],
  ['on this host', '198.51.100.2', ({ client }) => client, addresses[4].origin],
])('through a SOCKS server %s, at %s', (_, address, host, origin) => {
  test('the kernel carries what the handshake began', async () => {
    await using _server = await microsocks(host(world), address, 1080)
    await using program = await throughSocks(address)
    const size = 50 * MB
    expect(await upAndDown(`http://${origin.includes(':') ? `[${origin}]` : origin}`, size)).toEqual(
      expected(size),
    )
    // The server speaks first: its words may come with the reply to the handshake.
    const first = await dial(world.client, [origin, 22], { send: 'hello', read: 18, timeout: 5000 })
    expect(first).toMatchObject({ end: 'closed', received: 18, first: 'SSH-2.0-righello' })
    const sessions = () => program.events.filter(({ event }) => event === 'session-end')
    await program.until(() => sessions().length === 3, 'all ends')
    expect(sessions().map(({ carried }) => carried)).toEqual(['splice', 'splice', 'splice'])
    expect(sessions()[2]).toMatchObject({ bytes: { sent: 5, received: 18 } })
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })
})
