import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial } from './rig/client.ts'
import { datagram, datagramEcho, echoRequest } from './rig/datagram.ts'
import { sessions } from './rig/sessions.ts'
import { withProxy } from './rig/with-proxy.ts'
import { addresses, startOrigin, tellRules, World } from './rig/world.ts'

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

const received = async (name: string, counter: 'rx' | 'tx') => {
  const text = await world.client.sh(`ip -s -j link show ${name}`)
  return (JSON.parse(text) as [{ stats64: Record<'rx' | 'tx', { packets: number }> }])[0].stats64[counter]
    .packets
}

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { client, origin, url } = addresses[family]

  describe('each action does what it says', () => {
    const proxy = withProxy(() => world, {
      rules: [
        'reject dport 9 not tcp',
        'reject tcp dport 10',
        'drop dport 11',
        'direct dport 7',
        `reject proto ${family === 4 ? 'icmp' : 'icmpv6'} to ${origin}`,
      ],
    })

    test('reject refuses a connection at once, as a closed port does', async () => {
      const { end, connectMs } = await dial(world.client, [origin, 10])
      expect(end).toBe('ECONNREFUSED')
      expect(connectMs).toBeLessThan(800)
    })

    test('reject answers datagrams and echo requests with ICMP port unreachable', async () => {
      expect(await datagram(world.client, [origin, 9])).toBe('ECONNREFUSED')
      expect(await datagram(world.client, [origin, 9], { bytes: 9000 })).toBe('ECONNREFUSED')
      expect(await echoRequest(world.client, origin)).toBe('ECONNREFUSED')
    })

    test('drop lets neither connection nor datagram out, without an answer', async () => {
      expect(await dial(world.client, [origin, 11], { timeout: 1500 })).toMatchObject({ end: 'timeout' })
      expect(await datagram(world.client, [origin, 11])).toBe('silence')
    })

    test('direct never enters userspace, and the origin sees the program itself', async () => {
      const result = await dial(world.client, [origin, 7], { echo: 10_000 })
      expect(result).toMatchObject({ end: 'closed', received: 10_000, equal: true })
      await expect.poll(() => world.reached.at(-1)).toMatchObject({ fromPort: result.port })
      expect(await datagram(world.client, [origin, 7])).toBe('answered')
      // In fragments, too.
      expect(await datagram(world.client, [origin, 7], { bytes: 20_000 })).toBe('answered')
      expect(sessions(proxy())).toEqual([])
    })

    test('what no rule matches is proxied', async () => {
      const { stdout } = await world.client.run('curl', ['-sS', `http://${url}/`])
      expect(stdout).toContain('GET /')
      expect(sessions(proxy())).toHaveLength(1)
    })

    test('packets and bytes are counted by rule', async () => {
      await dial(world.client, [origin, 10])
      for (let i = 0; i < 3; i++) await datagram(world.client, [origin, 9], { bytes: 100 })
      const { counts } = await tellRules(proxy(), {})
      const size = 100 + 8 + (family === 4 ? 20 : 40)
      expect(counts?.[1]).toEqual([3, 3 * size])
      expect(counts?.[2]?.[0]).toBe(1)
      expect(counts?.[4]).toEqual([0, 0])
    })
  })

  describe('what others open', () => {
    withProxy(() => world, { rules: [], defaultAction: 'drop' })

    test('a server of this host answers, whatever the rules', async () => {
      await using _server = await startOrigin(world.client)
      // With and without SYN cookies.
      for (const cookies of [2, 1]) {
        await world.client.sh(`sysctl -qw net.ipv4.tcp_syncookies=${cookies}`)
        const echoed = await dial(world.internet, [client, 7], { echo: 10_000, timeout: 5000 })
        expect(echoed).toMatchObject({ end: 'closed', received: 10_000, equal: true })
      }
      expect(await dial(world.client, [origin, 7], { timeout: 1000 })).toMatchObject({ end: 'timeout' })
    })
  })

  describe('redirect', () => {
    beforeAll(() =>
      world.client.sh('ip link add in0 type veth peer name in1; ip link set in0 up; ip link set in1 up'),
    )
    afterAll(() => world.client.sh('ip link del in0'))
    withProxy(() => world, { rules: ['redirect:wan1 tcp dport 7', 'redirect-into:in0 udp dport 7'] })

    test('sends by another interface, to the next hop there', async () => {
      const before = await received('wan1', 'tx')
      const result = await dial(world.client, [origin, 7], { echo: 100_000 })
      expect(result).toMatchObject({ end: 'closed', received: 100_000, equal: true })
      expect((await received('wan1', 'tx')) - before).toBeGreaterThanOrEqual(3)
    })

    test('or into one, as if received there', async () => {
      await world.client.sh(`nft -f - <<'END'
        table inet seen {
          chain before { type filter hook prerouting priority -300; iifname in0 udp dport 7 counter; }
        }
END`)
      expect(await datagram(world.client, [origin, 7])).toBe('silence')
      expect(await world.client.sh('nft list table inet seen; nft delete table inet seen')).toContain(
        'counter packets 1 bytes',
      )
    })
  })
})

describe('log', () => {
  const proxy = withProxy(() => world, { rules: ['drop udp dport 7 log', 'direct tcp dport 7 log'] })

  test('reports each connection and each datagram with its rule and program', async () => {
    const [host, { origin }] = [world.client, addresses[4]]
    await datagram(host, [origin, 7])
    await dial(host, [origin, 7], { echo: 50_000, shutdown: true })
    const logged = () => proxy().events.filter(({ event }) => event === 'logged')
    await proxy().until(() => logged().length >= 2, 'both in the log')
    expect(logged()).toEqual([
      expect.objectContaining({ rule: 1, action: 'drop', protocol: 17, interface: 'wan0' }),
      expect.objectContaining({
        rule: 2,
        action: 'direct',
        protocol: 6,
        destination: expect.objectContaining({ address: origin, port: 7 }),
        process: expect.objectContaining({ name: 'client', uid: 0 }),
      }),
    ])
  })
})
