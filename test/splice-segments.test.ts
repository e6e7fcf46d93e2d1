import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { expectEnd } from './rig/ending.ts'
import { firewall } from './rig/firewall.ts'
import { endFrom, ends } from './rig/sessions.ts'
import { addresses, tellRules, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
  // The first to ask for a neighbour's address takes milliseconds, and looks far.
  for (const { origin } of [addresses[4], addresses[6]]) await dial(world.client, [origin, 7], { echo: 1 })
})
afterAll(() => world?.close())

const MB = 1_000_000

/** What a program says first goes to our socket only where somebody here wants to hear it. */
const proxied = (options = {}) => world.proxy({ interfaces: ['wan0'], ...options })

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

/**
 * Says by a raw socket, in the name of one address and port to another, that something has come, and that connections end: from
 * anywhere but where one is. With mark 7.
 */
const forged = `
import random, socket, struct, sys
source, destination = sys.argv[1:3]
ports = [int(port) for port in sys.argv[3:5]]
family = socket.AF_INET6 if ':' in source else socket.AF_INET
s = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
s.bind((source, 0))
addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
s.setsockopt(socket.SOL_SOCKET, 36, 7)
for flags in (0x10, 0x04, 0x14, 0x11):
  for _ in range(int(sys.argv[5])):
    segment = struct.pack('!HHIIBBHHH', *ports, random.getrandbits(32), random.getrandbits(32), 0x50, flags, 512, 0, 0)
    total = sum(struct.unpack('!%dH' % (len(addresses) // 2 + 12), addresses + struct.pack('!HH', 6, 20) + segment))
    total = (total & 0xffff) + (total >> 16)
    s.sendto(segment[:16] + struct.pack('!HH', ~(total + (total >> 16)) & 0xffff, 0), (destination, 0))
`

/** Says something, and the rest later; prints what the server says then. */
const resumed = `
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
s.sendall(b'first ')
print('sent', flush=True)
input()
s.sendall(b'second')
s.shutdown(socket.SHUT_WR)
print('heard', s.makefile().read(), flush=True)
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

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]

  test('a segment that comes late to where the process had accepted it ends nothing', async () => {
    await using proxy = await proxied({ plugin: 'peeking' })
    const { stdout, stderr } = await world.client.run('python3', ['-c', late, origin, '9'])
    expect({ stdout, stderr }).toEqual({ stdout: `${digestOf('hello')} 5\n`, stderr: '' })
    await proxy.until((program) => ends(program).length > 0, 'the end')
    expect(ends(proxy)).toMatchObject([{ how: 'closed', carried: 'splice' }])
    await expectEnd(proxy)
  })

  /** In the name of a port of the origin, to whoever is connected to that. */
  async function forge(port: number, count: number): Promise<void> {
    const peers = await world.internet.sh(`ss -Htn state established sport = :${port}`)
    const [, address, peer] = /(?:\[::ffff:|\[)?([\da-f.:]+?)\]?:(\d+)\s*$/.exec(peers) ?? []
    const words = ['-c', forged, origin, `${address}`, `${port}`, `${peer}`, `${count}`]
    expect(await world.internet.run('python3', words)).toMatchObject({ code: 0, stderr: '' })
  }

  test('nor does it while our sockets still have something to do', async () => {
    await using proxy = await proxied({ plugin: 'peeking' })
    // What the process has passed on is acknowledged by nobody meanwhile.
    const deaf = await firewall(
      world.internet,
      'output',
      'tcp sport 9 tcp flags & (syn | fin | rst) == 0 meta mark != 7 drop',
    )
    const client = world.client.spawn('python3', ['-c', resumed, origin, '9'])
    try {
      await client.until(({ stdout }) => stdout.includes('sent'), 'first words')
      // The plugin looks for 300 ms.
      await sleep(500)
      await forge(9, 1)
      await sleep(100)
    } finally {
      await deaf[Symbol.asyncDispose]()
    }
    client.child.stdin?.write('go\n')
    await client.until(({ stdout }) => /heard .+\n/.test(stdout), 'an answer')
    expect(client.stdout).toContain(`heard ${digestOf('first second')} 12`)
    await proxy.until((program) => ends(program).length > 0, 'the end')
    expect(ends(proxy)).toMatchObject([{ how: 'closed', carried: 'splice', bytes: { sent: 12 } }])
    await expectEnd(proxy)
  })

  test('what somebody says who cannot know where it is ends nothing', async () => {
    await using proxy = await proxied()
    const held = await holdDial(world.client, [origin, 7], { echo: MB })
    await sleep(300)
    await forge(7, 4)
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
    await using proxy = await proxied({ plugin: 'peeking' })
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
      // While it looks, more comes than fits into its socket to the upstream.
      await using proxy = await proxied({ plugin: 'peeking' })
      await using client = world.client.spawn('python3', ['-c', insistent, origin])
      await client.until(({ stdout }) => stdout.includes('heard'), 'what the server says')
      await tellRules(proxy, { rules: ['direct tcp'], reset: true })
      expect((await client.exited).stdout.trim().split('\n').at(-1)).toBe('ConnectionResetError')
      await server.until(({ stdout }) => stdout.includes('ConnectionResetError'), 'a reset')
      await proxy.until((program) => ends(program).length > 0, 'the end')
      expect(ends(proxy)).toMatchObject([{ how: 'aborted' }])
      await expectEnd(proxy)
    } finally {
      await world.client.sh(`sysctl -qw net.ipv4.tcp_window_scaling=1 net.ipv4.tcp_wmem='${buffers}'`)
    }
  })
})
