// Interfaces above others, where packets of one socket come by twice, and those of other network namespaces.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { datagram, datagramEcho } from './rig/datagram.ts'
import { Host } from './rig/host.ts'
import { endFrom, warnings } from './rig/sessions.ts'
import { addresses, World } from './rig/world.ts'

let world: World
let echo: AsyncDisposable
beforeAll(async () => {
  world = await World.create()
  echo = await datagramEcho(world.internet, 7)
  // As WireGuard does, a VXLAN leaves the program's socket with the packets that it puts around those of the program.
  await world.internet.sh(`
    ip link add tunnel type vxlan id 7 dstport 4789 local 198.51.100.1 remote 198.51.100.2
    ip addr add 192.0.2.1/24 dev tunnel
    ip addr add 2001:db8:7::1/64 dev tunnel nodad
    ip link set tunnel up`)
  await world.client.sh(`
    ip link add tunnel type vxlan id 7 dstport 4789 local 198.51.100.2 remote 198.51.100.1
    ip addr add 192.0.2.2/24 dev tunnel
    ip addr add 2001:db8:7::2/64 dev tunnel nodad
    ip link set tunnel up
    ip link add link wan0 name mac0 type macvlan mode bridge
    ip addr add 198.51.100.3/25 dev mac0
    ip addr add 2001:db8:1::3/64 dev mac0 nodad
    ip link set mac0 up`)
})
afterAll(async () => {
  await echo?.[Symbol.asyncDispose]()
  await world?.close()
})

const MB = 1_000_000

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]
  const ip = family === 4 ? 'ip' : 'ip -6'
  const host = family === 4 ? `${origin}/32` : `${origin}/128`
  const through = {
    tunnel: `via ${family === 4 ? '192.0.2.1' : '2001:db8:7::1'} dev tunnel`,
    mac0: `via ${addresses[family].gateway} dev mac0`,
  }

  /** Leads what is for the origin over an interface. */
  async function route(by: keyof typeof through): Promise<AsyncDisposable> {
    await world.client.sh(`${ip} route add ${host} ${through[by]}`)
    return {
      async [Symbol.asyncDispose]() {
        await world.client.sh(`${ip} route del ${host}`)
      },
    }
  }

  test.each(['tunnel', 'mac0'] as const)(
    'what leaves by %s is spliced, with the one below intercepted too',
    async (by) => {
      await using _route = await route(by)
      await using proxy = await world.proxy({ interfaces: [by, 'wan0'] })
      const held = await holdDial(world.client, [origin, 7], { echo: MB })
      await proxy.until(({ events }) => events.some(({ event }) => event === 'session'), 'a session')
      const echoed = await held.release()
      expect(echoed).toMatchObject({ end: 'closed', received: MB, equal: true })
      expect(await endFrom(proxy, echoed.port)).toMatchObject({ how: 'closed', carried: 'splice' })
      expect(warnings(proxy)).toEqual([])
      expect(await proxy.stop()).toMatchObject({ code: 0 })
    },
  )

  test('a container on a macvlan connects as it likes', async () => {
    await using container = await Host.create('container')
    const [address, bits] = family === 4 ? ['198.51.100.4', 25] : ['2001:db8:1::4', 64]
    await world.client.sh(`
      ip link add link wan0 name mac1 type macvlan mode bridge
      ip link set mac1 netns ${container.pid}`)
    await container.sh(`
      ip addr add ${address}/${bits} dev mac1 ${family === 4 ? '' : 'nodad'}
      ip link set mac1 up
      ${ip} route add default via ${addresses[family].gateway}`)
    await using proxy = await world.proxy({ interfaces: ['wan0'], rules: ['drop udp', 'drop uid 1234'] })
    expect(await dial(container, [origin, 7], { echo: MB })).toMatchObject({ received: MB, equal: true })
    expect(await datagram(container, [origin, 7])).toBe('answered')
    expect(await datagram(world.client, [origin, 7])).toBe('silence')
    expect(proxy.events.filter(({ event }) => event === 'session')).toEqual([])
  })

  test('what leaves by a tunnel is relayed, with the one below intercepted too', async () => {
    await using _route = await route('tunnel')
    await using proxy = await world.proxy({ interfaces: ['tunnel', 'wan0'], carry: 'relay' })
    const echoed = await dial(world.client, [origin, 7], { echo: MB })
    expect(echoed).toMatchObject({ end: 'closed', received: MB, equal: true })
    expect(await endFrom(proxy, echoed.port)).toMatchObject({ how: 'closed', carried: 'relay' })
    expect(await datagram(world.client, [origin, 7])).toBe('answered')
  })

  test('the rules decide about the packets of a tunnel, also around what is older, or of a server', async () => {
    const server = `
import socket, threading
def echo(peer):
  while data := peer.recv(65536): peer.sendall(data)
listener = socket.socket(socket.AF_INET6); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('::', 2200)); listener.listen(); print('ready', flush=True)
while True: threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()`
    await using served = world.client.spawn('python3', ['-c', server])
    await served.until(({ stdout }) => stdout.includes('ready'), 'the server')
    const to = [family === 4 ? '192.0.2.2' : '2001:db8:7::2', 2200] as const
    const words = { echo: 1000, timeout: 1500 }
    const older = await holdDial(world.internet, to, words)
    await using proxy = await world.proxy({
      interfaces: ['wan0'],
      rules: ['direct tcp', 'drop udp dport 4789'],
    })
    expect(await older.release()).toMatchObject({ end: 'timeout', received: 0 })
    expect(await dial(world.internet, to, words)).toMatchObject({ end: 'timeout' })
    expect(await proxy.stop()).toMatchObject({ code: 0 })
    expect(await dial(world.internet, to, words)).toMatchObject({ end: 'closed', received: 1000 })
  })

  test('a user is redirected into a tunnel, whose own packets are not', async () => {
    await world.client.sh(`${ip} route add default ${through.tunnel} metric 3000`)
    const rules = ['redirect:tunnel uid 1234', 'direct']
    await using proxy = await world.proxy({ interfaces: ['wan0'], rules })
    const by = ['setpriv', '--reuid=1234', '--clear-groups']
    expect(await dial(world.client, [origin, 7], { by, echo: MB })).toMatchObject({
      received: MB,
      equal: true,
    })
    expect(await datagram(world.client, [origin, 7], { by })).toBe('answered')
    const [{ stats64 }] = JSON.parse(await world.client.sh('ip -s -j link show tunnel')) as [
      { stats64: { tx: { bytes: number } } },
    ]
    expect(stats64.tx.bytes).toBeGreaterThan(MB)
    expect(await proxy.stop()).toMatchObject({ code: 0 })
    await world.client.sh(`${ip} route del default ${through.tunnel} metric 3000`)
  })
})
