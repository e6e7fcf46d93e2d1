import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Program } from './rig/host.ts'
import { endFrom } from './rig/sessions.ts'
import { joinByTunnel } from './rig/tunnel.ts'
import { addresses, World } from './rig/world.ts'

/** What is 15 ms away in each direction, and what is near. */
const far = { 4: '203.0.113.40', 6: '2001:db8:4::40' } as const
const near = { 4: addresses[4].origin, 6: addresses[6].origin } as const
const wayMs = 15

const stack = new AsyncDisposableStack()
let world: World
beforeAll(async () => {
  world = stack.use(await World.create())
  const { client, internet } = world
  stack.use(
    await joinByTunnel(
      { host: client, name: 'tun0', addresses: ['192.0.2.5/30', '2001:db8:5::5/126'] },
      { host: internet, name: 'tun1', addresses: ['192.0.2.6/30', '2001:db8:5::6/126'] },
      'delay',
      `${wayMs}`,
    ),
  )
  await internet.sh(`ip addr add ${far[4]}/32 dev lo; ip addr add ${far[6]}/128 dev lo nodad`)
  await client.sh(`ip route add ${far[4]} dev tun0; ip route add ${far[6]} dev tun0`)
})
afterAll(() => stack.disposeAsync())

/** Sends so many bytes with a congestion control, after a while, and prints its port and the seconds until all were received. */
const uploading = `
import socket, sys, time
origin, control, wait, size = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
s = socket.socket(socket.AF_INET6 if ':' in origin else socket.AF_INET)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
s.connect((origin, 9))
time.sleep(wait)
start = time.monotonic()
s.sendall(bytes(size))
# So that neither direction has ended when the way there and back is known.
time.sleep(0.1)
s.shutdown(socket.SHUT_WR)
assert s.makefile().read().split()[1] == str(size)
print(s.getsockname()[1], time.monotonic() - start)
`

interface Upload {
  readonly control: string
  readonly waitMs?: number
  readonly size?: number
}

async function upload(origin: string, { control, waitMs = 0, size = 1000 }: Upload) {
  const words = ['-c', uploading, origin, control, `${waitMs / 1000}`, `${size}`]
  const { code, stdout, stderr } = await world.client.run('python3', words, { timeoutMs: 30_000 })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const [port = 0, seconds = 0] = stdout.split(' ').map(Number)
  return { port, seconds }
}

const proxied = (options = {}) => world.proxy({ interfaces: ['wan0', 'tun0'], ...options })

const isRelayed = {
  carried: 'relay',
  notSpliced: 'the upstream is far, and the program has timed a shorter way',
}

async function expectCarried(proxy: Program, port: number, how: object): Promise<void> {
  expect(await endFrom(proxy, port)).toMatchObject({ how: 'closed', ...how })
}

describe.each([4, 6] as const)('over IPv%i,', (family) => {
  test('a program is spliced to a server that is far, whenever it speaks', async () => {
    await using proxy = await proxied()
    for (const control of ['cubic', 'bbr'])
      for (const waitMs of [0, 300]) {
        const { port } = await upload(far[family], { control, waitMs })
        await expectCarried(proxy, port, { carried: 'splice' })
      }
  })

  test('it is relayed when our socket has answered what it said first', async () => {
    await using proxy = await proxied({ plugin: 'peeking' })
    const { port } = await upload(far[family], { control: 'cubic' })
    await expectCarried(proxy, port, isRelayed)
  })

  test('it is relayed when its congestion control counts a handshake that was with us', async () => {
    await using proxy = await proxied({ plugin: 'accepting' })
    const { port } = await upload(far[family], { control: 'bbr' })
    await expectCarried(proxy, port, isRelayed)
  })

  test('any is spliced to a server that is near', async () => {
    await using proxy = await proxied()
    for (const control of ['cubic', 'bbr']) {
      const { port } = await upload(near[family], { control })
      await expectCarried(proxy, port, { carried: 'splice' })
    }
  })

  // Spliced as a near one, it took from three to nine times as long.
  test.each(['cubic', 'bbr'])(
    'an upload by a long way takes no longer than without a proxy, with %s',
    async (control) => {
      // The quicker of two: others use the processors, too.
      const measure = async () => {
        const [one, two] = [await once(), await once()]
        return Math.min(one.seconds, two.seconds)
      }
      const once = () => upload(far[family], { control, size: 12_000_000 })
      const alone = await measure()
      await using _ = await proxied()
      expect(await measure()).toBeLessThan(2 * alone)
    },
  )
})
