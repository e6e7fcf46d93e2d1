import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { holdDial } from './rig/client.ts'
import { Host } from './rig/host.ts'
import { microsocks } from './rig/servers.ts'
import { endFrom } from './rig/sessions.ts'
import { startOrigin, World } from './rig/world.ts'

/**
 * Behind a link that carries less than a client believes. The far end knows, and does not tell by
 * its MSS: veth would drop its packets without a word (is_skb_forwardable), the last one for good.
 */
const far = { 4: '192.0.2.10', 6: '2001:db8:9::10' } as const
const narrow = 1300
const MB = 1_000_000

let world: World
let beyond: Host
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  world = stack.use(await World.create())
  beyond = stack.use(await Host.create('beyond'))
  await world.internet.sh(`
    ip link add far0 mtu ${narrow} type veth peer name eth0 mtu 1500 netns ${beyond.pid}
    ip addr add 192.0.2.1/24 dev far0
    ip addr add 2001:db8:9::1/64 dev far0 nodad
    ip link set far0 up
    echo 1 >/proc/sys/net/ipv4/ip_forward
    echo 1 >/proc/sys/net/ipv6/conf/all/forwarding`)
  await beyond.sh(`
    ip addr add ${far[4]}/24 dev eth0
    ip addr add ${far[6]}/64 dev eth0 nodad
    ip link set eth0 up
    ip route add default via 192.0.2.1 mtu lock ${narrow} advmss 1460
    ip -6 route add default via 2001:db8:9::1 mtu lock ${narrow} advmss 1440`)
  stack.use(await startOrigin(beyond))
})
afterAll(() => stack.disposeAsync())

/** How large packets may be towards an address, as the client's kernel has learnt. */
const known = async (address: string) => {
  const route = await world.client.sh(`ip route get ${address}`)
  return Number(/ mtu (\d+)/.exec(route)?.[1])
}

/** What was learnt is forgotten. */
const forget = () => world.client.sh('ip route flush cache; ip -6 route flush cache')

describe.each([4, 6] as const)('over IPv%i', (family) => {
  test('a program hears of packets that are too large for a part of the path', async () => {
    await forget()
    await using proxy = await world.proxy({ interfaces: ['wan0'] })
    const held = await holdDial(world.client, [far[family], 7], { echo: MB })
    // The kernel carries it before it has sent anything.
    await sleep(300)
    expect(await known(far[family])).toBeNaN()
    const echoed = await held.release()
    expect(echoed).toMatchObject({ end: 'closed', received: MB, equal: true })
    expect(await endFrom(proxy, echoed.port)).toMatchObject({ carried: 'splice', bytes: { sent: MB } })
    expect(await known(far[family])).toBe(narrow)
    expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
  })

  test('also where the connection leads to another address', async () => {
    await forget()
    await using _server = await microsocks(beyond, far[family], 1080)
    const at = family === 6 ? `[${far[6]}]` : far[4]
    await using program = world.run(['--json', '-i', 'wan0', '-p', `socks=socks5://${at}:1080`], {
      input: '',
    })
    await program.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line')
    const destination = family === 6 ? '2001:db8:2::10' : '203.0.113.10'
    const held = await holdDial(world.client, [destination, 7], { echo: 90_000 })
    await sleep(300)
    expect(await held.release()).toMatchObject({ end: 'closed', received: 90_000, equal: true })
    const ends = () => program.events.filter(({ event }) => event === 'session-end')
    await program.until(() => ends().length === 1, 'its end')
    expect(ends()).toMatchObject([{ carried: 'splice', bytes: { sent: 90_000 } }])
    expect(await known(destination)).toBe(narrow)
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })
})
