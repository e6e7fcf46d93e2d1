import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { firewall } from './rig/firewall.ts'
import { Host, type Program } from './rig/host.ts'
import { microsocks } from './rig/servers.ts'
import { endFrom, sessions, warnings } from './rig/sessions.ts'
import { type Disorder, joinByTunnel, shuffle } from './rig/tunnel.ts'
import { addresses, World } from './rig/world.ts'

const MB = 1_000_000

/** An origin behind the internet, and a way to the internet's own by an interface without link layer header. */
const stack = new AsyncDisposableStack()
const by = { wan0: ['203.0.113.20', '2001:db8:4::20'], tun0: ['203.0.113.30', '2001:db8:4::30'] } as const
let world: World
let far: Host
let tunnels: Program[]
beforeAll(async () => {
  world = stack.use(await World.create())
  far = stack.use(await Host.create('far'))
  const { client, internet } = world
  await internet.sh(`
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ip addr add 203.0.113.30/32 dev lo
    ip addr add 2001:db8:4::30/128 dev lo nodad`)
  tunnels = [
    await joinByTunnel(
      { host: internet, name: 'tun0', addresses: ['192.0.2.1/30', '2001:db8:5::1/126'] },
      { host: far, name: 'tun0', addresses: ['192.0.2.2/30', '2001:db8:5::2/126'] },
      'shuffle',
    ),
    await joinByTunnel(
      { host: client, name: 'tun0', addresses: ['192.0.2.5/30', '2001:db8:5::5/126'] },
      { host: internet, name: 'tun1', addresses: ['192.0.2.6/30', '2001:db8:5::6/126'] },
      'shuffle',
    ),
  ]
  for (const tunnel of tunnels) stack.use(tunnel)
  await internet.sh('ip route add 203.0.113.20 dev tun0; ip route add 2001:db8:4::20 dev tun0')
  await client.sh('ip route add 203.0.113.30 dev tun0; ip route add 2001:db8:4::30 dev tun0')
  await far.sh(`
    ip addr add 203.0.113.20/32 dev lo
    ip addr add 2001:db8:4::20/128 dev lo nodad
    ip route add default dev tun0
    ip -6 route add default dev tun0`)
  const origin = stack.use(
    far.spawn(process.execPath, [new URL('./rig/origin.ts', import.meta.url).pathname]),
  )
  await origin.until(({ stdout }) => stdout.includes('ready'), 'the origin to be ready')
})
afterAll(() => stack.disposeAsync())

const origins = [addresses[4].origin, addresses[6].origin]
const everywhere = Object.values(by).flat()
const proxied = () => world.proxy({ interfaces: Object.keys(by) })

/** What the tunnels do from now on, and did until now. */
const disturb = (disorder: Partial<Disorder>) =>
  Promise.all(tunnels.map((tunnel) => shuffle(tunnel, { late: 0, twice: 0, lost: 0, cut: 0, ...disorder })))

/** For as long as the value lives, packets both ways between the client and the internet meet this rule. */
async function onTheWay(rule: string): Promise<AsyncDisposable> {
  const stack = new AsyncDisposableStack()
  stack.use(await firewall(world.internet, 'prerouting', rule))
  stack.use(await firewall(world.internet, 'output', rule))
  return stack
}

/**
 * Echoes of several connections to each address at once: nothing is amiss, and the kernel carries all of them, but for those to
 * which our SYN or its answer was lost: their programs ask after 200 ms, are heard here, and by a way that has packets late they are
 * relayed.
 */
async function expectEchoes(
  proxy: Program,
  size: number,
  targets: readonly string[],
  { each = 4, lossy = false }: { each?: number; lossy?: boolean } = {},
) {
  const dials = targets.flatMap((address) =>
    Array.from({ length: each }, () => dial(world.client, [address, 7], { echo: size, timeout: 20_000 })),
  )
  const results = await Promise.all(dials)
  let relayed = 0
  for (const result of results) {
    expect(result).toMatchObject({ end: 'closed', received: size, equal: true })
    const end = await endFrom(proxy, result.port)
    expect(end).toMatchObject({ bytes: { sent: size, received: size } })
    if (!lossy || end['carried'] !== 'relay') expect(end).toMatchObject({ carried: 'splice' })
    else expect(end['notSpliced']).toMatch(/^the upstream is far/)
    relayed += end['carried'] === 'relay' ? 1 : 0
  }
  expect(relayed).toBeLessThan(results.length / 2)
  return results
}

async function expectEnd(proxy: Program): Promise<void> {
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
  expect(warnings(proxy)).toEqual([])
}

test.each([0, 1, 10, 50])(
  'packets that come late and twice, and %i of a thousand that do not come, cost no byte of either direction',
  async (lost) => {
    await using proxy = await proxied()
    await disturb({ late: 50, twice: 20, lost })
    await expectEchoes(proxy, MB, everywhere, { lossy: lost > 0 })
    for (const counts of await disturb({})) {
      expect(counts.late).toBeGreaterThan(100)
      expect(counts.twice).toBeGreaterThan(40)
      expect(counts.lost > 0).toBe(lost > 0)
    }
    await expectEnd(proxy)
  },
  60_000,
)

test.each([
  ['all long packets', { cut: 1000 }],
  [
    'many, among which fragments come late, twice and not at all,',
    { cut: 500, late: 20, twice: 10, lost: 2 },
  ],
])(
  'of %s that come in fragments, the kernel carries every byte',
  async (_, disorder) => {
    await using proxy = await proxied()
    // The kernel carries them before anything is cut.
    const dials = await Promise.all(
      everywhere.map((address) => holdDial(world.client, [address, 7], { echo: MB })),
    )
    await sleep(300)
    await disturb(disorder)
    for (const held of dials) {
      const result = await held.release()
      expect(result).toMatchObject({ end: 'closed', received: MB, equal: true })
      expect(await endFrom(proxy, result.port)).toMatchObject({
        carried: 'splice',
        bytes: { sent: MB, received: MB },
      })
    }
    for (const counts of await disturb({})) expect(counts.cut).toBeGreaterThan(500)
    await expectEnd(proxy)
  },
  60_000,
)

test.each([4, 6] as const)('so it does where these lead to another address, over IPv%i', async (family) => {
  const upstream = by.wan0[family === 4 ? 0 : 1]
  await using _server = await microsocks(far, upstream, 1080)
  const url = `socks5://${family === 6 ? `[${upstream}]` : upstream}:1080`
  const rule = `direct to ${upstream} dport 7`
  await using program = world.run(['--json', '-i', 'wan0', '-p', `socks=${url}`, '--rule', rule], {
    input: '',
  })
  await program.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line')
  // An echo of 200 KB, of a connection that stays.
  const script = `
import socket, sys
s = socket.create_connection((sys.argv[1], 7), 5)
sys.stdin.readline()
s.sendall(b'x' * 200000)
left = 200000
while left: left -= len(s.recv(65536))
print('back', flush=True)
sys.stdin.readline()`
  const held = world.client.spawn('/usr/bin/python3', ['-c', script, addresses[family].origin])
  await program.until(({ events }) => events.some(({ event }) => event === 'session-start'), 'a session')
  await sleep(300)
  await disturb({ cut: 1000 })
  held.child.stdin?.write('\n')
  await held.until(({ stdout }) => stdout.includes('back'), 'all of it')
  // Its fragments have the same addresses on the network, and the same numbers.
  const beside = await dial(world.client, [upstream, 7], { echo: 150_000, timeout: 5000 })
  expect(beside).toMatchObject({ end: 'closed', received: 150_000, equal: true })
  held.child.stdin?.end('\n')
  await held.exited
  const ends = () => program.events.filter(({ event }) => event === 'session-end')
  await program.until(() => ends().length === 1, 'its end')
  expect(ends()).toMatchObject([{ carried: 'splice', bytes: { sent: 200_000, received: 200_000 } }])
  expect((await disturb({}))[0]?.cut).toBeGreaterThan(200)
  expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
})

test('what was sent into a blackout before the kernel took over comes again after it', async () => {
  await using proxy = await proxied()
  const before = world.reached.length
  const dials = async () => {
    // The end of the handshake is lost, too: the upstream believes in the connection only after it.
    await using _blackout = await onTheWay('tcp flags & syn == 0 drop')
    const echoes = expectEchoes(proxy, MB, origins)
    const greetings = Promise.all(
      origins.map((address) => dial(world.client, [address, 22], { read: 13, timeout: 20_000 })),
    )
    await proxy.until(() => sessions(proxy).length === 10, 'all sessions')
    await sleep(1000)
    expect(world.reached).toHaveLength(before)
    return { echoes, greetings }
  }
  const { echoes, greetings } = await dials()
  for (const { slowestGapMs } of await echoes) expect(slowestGapMs).toBeGreaterThan(900)
  for (const greeting of await greetings) {
    expect(greeting).toMatchObject({ end: 'closed', first: 'SSH-2.0-rig' })
    expect(await endFrom(proxy, greeting.port)).toMatchObject({ carried: 'splice' })
  }
  await expectEnd(proxy)
})

test('an upstream that has not heard the end of the handshake takes what comes next', async () => {
  await using proxy = await proxied()
  await using _loss = await firewall(
    world.internet,
    'prerouting',
    'tcp flags & (fin | syn | rst | psh | ack) == ack meta length < 100 drop',
  )
  const rejected = () => world.internet.sh('nstat -asz TcpExtTSEcrRejected | tail -1')
  const before = await rejected()
  await expectEchoes(proxy, 1000, origins, { each: 50 })
  expect(await rejected()).toBe(before)
  await expectEnd(proxy)
})

test('a fifth of the packets lost while connections begin costs no byte', async () => {
  await using proxy = await proxied()
  const dials = async () => {
    // A SYN that is lost on its way out is no loss to its sender, but an error, which ends the connection.
    await using _loss = await onTheWay('tcp flags & syn == 0 numgen random mod 100 < 20 drop')
    const echoes = expectEchoes(proxy, MB, origins, { each: 12 })
    await sleep(1500)
    return { echoes }
  }
  const { echoes } = await dials()
  await echoes
  await expectEnd(proxy)
})
