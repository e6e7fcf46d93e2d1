import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { addresses, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

/** Connects, and prints how large a send buffer the kernel begins with: for ten segments such as the other side asks for. */
const connecting = `
import socket, sys
s = socket.create_connection((sys.argv[1], 80), 3)
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
`

async function sendBuffer(origin: string): Promise<number> {
  const { code, stdout, stderr } = await world.client.run('python3', ['-c', connecting, origin])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return Number(stdout)
}

const setMtu = (mtu: number) =>
  Promise.all([
    world.client.sh(`ip link set wan0 mtu ${mtu}`),
    world.internet.sh(`ip link set eth0 mtu ${mtu}`),
  ])

describe.each([4, 6] as const)("IPv%i: a program's send buffer", (family) => {
  const { origin } = addresses[family]

  // By segments of lo, where our listener is, it was 57 times as large.
  test('is as without a proxy', async () => {
    const alone = await sendBuffer(origin)
    await using proxy = await world.proxy({ interfaces: ['wan0'] })
    expect(await sendBuffer(origin)).toBe(alone)
    await proxy.until(({ events }) => events.some(({ event }) => event === 'session'), 'the session')
  })

  test('follows the MTU of its interface', async () => {
    const alone = await sendBuffer(origin)
    await setMtu(9000)
    try {
      const more = await sendBuffer(origin)
      expect(more).toBeGreaterThan(alone)
      await using _ = await world.proxy({ interfaces: ['wan0'] })
      expect(await sendBuffer(origin)).toBe(more)
      await setMtu(1500)
      await expect.poll(() => sendBuffer(origin)).toBe(alone)
    } finally {
      await setMtu(1500)
    }
  })
})
