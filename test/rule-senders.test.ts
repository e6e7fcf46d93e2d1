import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial } from './rig/client.ts'
import { datagram, datagramEcho } from './rig/datagram.ts'
import { withProxy } from './rig/with-proxy.ts'
import { addresses, tellRules, World } from './rig/world.ts'

let world: World
let echo: AsyncDisposable
beforeAll(async () => {
  world = await World.create()
  echo = await datagramEcho(world.internet, 7)
})
afterAll(async () => {
  await echo?.[Symbol.asyncDispose]()
  await world?.close()
})

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]

  describe('rules look at who sends', () => {
    const proxy = withProxy(() => world, {
      rules: [
        'reject tcp uid 1234',
        'reject udp uid 1235-1240 not uid 1236',
        'reject tcp gid 4321',
        'reject cgroup watched',
        'reject tcp process client dport 22',
        'reject mark 0x99 dport 7',
        'direct tcp dport 59999',
      ],
    })
    const user = (uid: number, gid = 0) => ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups']

    test('by user and group', async () => {
      const end = async (by: readonly string[]) =>
        (await dial(world.client, [origin, 7], { by, send: 'x', shutdown: true })).end
      expect(await end(user(1234))).toBe('ECONNREFUSED')
      expect(await end(user(1233))).toBe('fin')
      expect(await end(user(0, 4321))).toBe('ECONNREFUSED')
      expect(await datagram(world.client, [origin, 7], { by: user(1235) })).toBe('ECONNREFUSED')
      expect(await datagram(world.client, [origin, 7], { by: user(1236) })).toBe('answered')
    })

    test('by the name of the process, also where its socket has tried before under a longer one', async () => {
      const script = `
import ctypes, socket, sys
name = lambda it: ctypes.CDLL(None).prctl(15, it, 0, 0, 0)
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
for it, port in ((b'longername', 59999), (b'client', 22)):
  name(it)
  try: s.connect((sys.argv[1], port)); print(s.recv(20))
  except OSError as e: print(type(e).__name__)`
      const { stdout } = await world.client.run('python3', ['-c', script, origin])
      expect(stdout).toBe('ConnectionRefusedError\nConnectionRefusedError\n')
      expect((await tellRules(proxy(), {})).counts?.[5]?.[0]).toBeGreaterThan(0)
    })

    test('by process and mark', async () => {
      expect((await dial(world.client, [origin, 22])).end).toBe('ECONNREFUSED')
      expect((await dial(world.client, [origin, 7], { mark: 0x99 })).end).toBe('ECONNREFUSED')
    })
  })

  test('and who leaves no memory for that with its socket connects to nobody', async () => {
    await using _proxy = await world.proxy({
      interfaces: ['wan0'],
      rules: ['reject tcp gid 4321'],
      defaultAction: 'direct',
      aged: true,
    })
    // Keys for signed segments (TCP_MD5SIG) are charged to the same account (optmem_max), and anybody may set them.
    const script = `
import socket, struct, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = socket.socket(family)
keys = 0
try:
  while len(sys.argv) > 2:
    address = struct.pack('=HHI', family, 0, 10 << 24 | keys) if family == socket.AF_INET else struct.pack('=HHI12sI', family, 0, 0, b' ', keys)
    s.setsockopt(socket.IPPROTO_TCP, 14, struct.pack('=128sBBHi80s', address, 0, 0, 6, 0, b'secret'))
    keys += 1
except OSError: pass
s.settimeout(2)
try: s.connect((sys.argv[1], 7)); print('connected')
except OSError as e: print(type(e).__name__)`
    const ask = async (...words: string[]) => {
      const by = ['--reuid=1234', '--regid=4321', '--clear-groups', '/usr/bin/python3']
      return (await world.client.run('setpriv', [...by, '-c', script, origin, ...words])).stdout
    }
    expect(await ask()).toBe('ConnectionRefusedError\n')
    expect(await ask('full')).toBe('TimeoutError\n')
  })
})
