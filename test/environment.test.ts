import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Dial, dial, holdDial, inCgroup } from './rig/client.ts'
import { firewall } from './rig/firewall.ts'
import { fixture } from './rig/fixture.ts'
import type { Program } from './rig/host.ts'
import { endFrom, ends, sessionFrom, sessions } from './rig/sessions.ts'
import { stateOf } from './rig/state.ts'
import { joinByTunnel } from './rig/tunnel.ts'
import { addresses, type ProxyProgramOptions, tellRules, World } from './rig/world.ts'

// What ethtool -K does, where there is no ethtool: ETHTOOL_SRXCSUM, STXCSUM, SSG, STSO, SGSO, SGRO.
const setOffloads = `
import array, fcntl, socket, struct, sys
s = socket.socket()
for command in (0x15, 0x17, 0x19, 0x1f, 0x24, 0x2c):
  value = array.array('B', struct.pack('II', command, int(sys.argv[2])))
  try: fcntl.ioctl(s, 0x8946, struct.pack('16sP', sys.argv[1].encode(), value.buffer_info()[0]))
  except OSError as e: print(hex(command), e)`

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { client, origin, url } = addresses[family]
  const target = [origin, 7] as const
  let world: World
  beforeAll(async () => {
    world = await World.create()
  })
  afterAll(() => world?.close())

  async function withProxy(
    body: (proxy: Program) => Promise<void>,
    options: ProxyProgramOptions = {},
  ): Promise<void> {
    await using proxy = await world.proxy({ interfaces: ['wan0'], plugin: 'mixed', ...options })
    await body(proxy)
    await proxy.stop()
    expect(proxy.events.filter(({ event }) => event === 'uncaught')).toEqual([])
  }

  /** That a web page is left alone, a static program carried, and that the origin sees nothing else. */
  async function expectCarried(proxy: Program, device = 'wan0', options: Dial = {}): Promise<void> {
    const before = { reached: world.reached.length, sessions: sessions(proxy).length }
    const { stdout, stderr } = await world.client.run('curl', [
      ...['-sS', '-m', '8', '--interface', device, `http://${url}/hello`],
    ])
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^GET \/hello from /)
    const result = await dial(world.client, target, { echo: 2_000_000, device, timeout: 8000, ...options })
    expect(result).toMatchObject({ end: 'closed', received: 2_000_000, equal: true })
    expect(await sessionFrom(proxy, result.port)).toMatchObject({ interface: device })
    expect(sessions(proxy, 'curl').length).toBeGreaterThan(0)
    expect(sessions(proxy).length - before.sessions).toBe(2)
    await expect.poll(() => world.reached.length - before.reached).toBe(2)
    const [page, other] = world.reached.slice(before.reached)
    expect(page?.fromPort).toBe(sessions(proxy, 'curl').at(-1)?.source.port)
    expect(other?.fromPort).not.toBe(result.port)
  }

  const [near, far, network] =
    family === 4
      ? (['192.0.2.2', '192.0.2.1', 24] as const)
      : (['2001:db8:5::2', '2001:db8:5::1', 64] as const)
  const ip = `ip -${family}`
  const nodad = family === 6 ? 'nodad' : ''

  describe('on links of other kinds', () => {
    test('an interface without MAC addresses, such as a tun, is intercepted', async () => {
      await using tunnel = await joinByTunnel(
        { host: world.client, name: 'tun7', addresses: [`${near}/${network}`] },
        { host: world.internet, name: 'tun7', addresses: [`${far}/${network}`] },
      )
      expect(tunnel.pid).toBeGreaterThan(0)
      await world.client.sh(`${ip} route add ${origin} via ${far} dev tun7`)
      const links = JSON.parse(await world.client.sh('ip -j -d link show tun7'))
      expect(links[0].link_type).toBe('none')
      await withProxy((proxy) => expectCarried(proxy, 'tun7'), { interfaces: ['tun7'] })
    })

    test('what a rule counts there is what leaves', async () => {
      await using tunnel = await joinByTunnel(
        { host: world.client, name: 'tun7', addresses: [`${near}/${network}`] },
        { host: world.internet, name: 'tun7', addresses: [`${far}/${network}`] },
      )
      expect(tunnel.pid).toBeGreaterThan(0)
      await world.client.sh(`${ip} route add ${origin} via ${far} dev tun7`)
      const rules = ['direct tcp dport 7']
      const left = async () => {
        const [link] = JSON.parse(await world.client.sh('ip -s -j link show tun7'))
        return link.stats64.tx as { packets: number; bytes: number }
      }
      await withProxy(
        async (proxy) => {
          const before = await left()
          const { release } = await holdDial(world.client, target, { echo: 1000 })
          const after = await left()
          const { counts } = await tellRules(proxy, {})
          expect(counts?.[1]).toEqual([after.packets - before.packets, after.bytes - before.bytes])
          expect(counts?.[1]?.[0]).toBe(2)
          await release()
        },
        { interfaces: ['tun7'], rules },
      )
    })

    test('a macvlan on top of another interface is intercepted', async () => {
      await world.client.sh(`
        ip link add link wan0 name mac0 type macvlan mode bridge
        ip addr add ${near}/${network} dev mac0 ${nodad}
        ip link set mac0 up
        ${ip} route add ${origin} via ${far} dev mac0`)
      await world.internet.sh(`ip addr add ${far}/${network} dev eth0 ${nodad}`)
      try {
        await withProxy((proxy) => expectCarried(proxy, 'mac0'), { interfaces: ['mac0'] })
      } finally {
        await world.client.sh('ip link del mac0')
        await world.internet.sh(`ip addr del ${far}/${network} dev eth0`)
      }
    })

    // IPv6 ends on a link of less than 1280.
    test.each([family === 4 ? 576 : 1280, 9000])('an MTU of %i', async (mtu) => {
      const set = (size: number) => [
        world.client.sh(`ip link set wan0 mtu ${size}`),
        world.internet.sh(`ip link set eth0 mtu ${size}`),
      ]
      await Promise.all(set(mtu))
      try {
        await withProxy((proxy) => expectCarried(proxy))
      } finally {
        await Promise.all(set(1500))
      }
    })

    test('an interface without any offloads', async () => {
      const set = (on: number) => world.client.run('python3', ['-c', setOffloads, 'wan0', String(on)])
      expect(await set(0)).toMatchObject({ code: 0, stdout: '', stderr: '' })
      try {
        await withProxy((proxy) => expectCarried(proxy))
      } finally {
        await set(1)
      }
    })
  })

  describe('behind a firewall', () => {
    test('that lets in nothing but lo and what belongs to a connection', () =>
      withProxy(async (proxy) => {
        await using _ = await firewall(
          world.client,
          'input',
          'policy drop;',
          'iif lo accept',
          'ct state established,related accept',
          // Neighbours.
          'meta l4proto icmpv6 accept',
        )
        await expectCarried(proxy)
      }))

    test.each(['output', 'input', 'prerouting'] as const)(
      'that drops what conntrack finds invalid, at %s',
      (hook) =>
        withProxy(async (proxy) => {
          await using _ = await firewall(world.client, hook, 'ct state invalid drop')
          await expectCarried(proxy)
        }),
    )

    test('that masquerades what leaves', () =>
      withProxy(async (proxy) => {
        await world.client.sh(`
          nft add table inet masq
          nft add chain inet masq out '{ type nat hook postrouting priority 100; }'
          nft add rule inet masq out oifname wan0 masquerade`)
        try {
          await expectCarried(proxy)
        } finally {
          await world.client.sh('nft delete table inet masq')
        }
      }))

    test('that gives what leaves another address', () =>
      withProxy(async (proxy) => {
        const [own, other] = family === 4 ? ['ip saddr', '198.51.100.3'] : ['ip6 saddr', '2001:db8:1::3']
        await world.client.sh(`
          ip addr add ${other}/${network === 24 ? 25 : 64} dev wan0 ${nodad} preferred_lft 0
          nft add table inet other
          nft add chain inet other out '{ type nat hook postrouting priority 100; }'
          nft add rule inet other out ${own} ${client} tcp dport 7 snat ${family === 4 ? 'ip' : 'ip6'} to ${other}`)
        try {
          // It cannot be held, nor spliced, for the kernel finds its socket by other addresses.
          const before = world.reached.length
          const result = await dial(world.client, target, { echo: 2_000_000 })
          expect(result).toMatchObject({ end: 'closed', received: 2_000_000, equal: true })
          expect(world.reached.slice(before)).toMatchObject([{ from: other }])
          expect(world.reached.at(-1)?.fromPort).not.toBe(result.port)
          await proxy.until(({ events }) => events.some(({ event }) => event === 'end'), 'its end')
          expect(ends(proxy)).toMatchObject([
            { how: 'closed', carried: 'relay', notSpliced: 'a socket is gone' },
          ])
        } finally {
          await world.client.sh(
            `nft delete table inet other; ip addr del ${other}/${network === 24 ? 25 : 64} dev wan0`,
          )
        }
      }))

    test('with a strict reverse path filter on all interfaces', async () => {
      const set = (value: number) =>
        world.client.sh(`for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo ${value} >$f; done`)
      await set(1)
      try {
        await withProxy((proxy) => expectCarried(proxy))
      } finally {
        await set(0)
      }
    })
  })

  describe('when the handshake loses a packet', () => {
    const syn = 'tcp dport 7 tcp flags & (syn|ack) == syn quota until 100 bytes drop'
    const synAck = 'tcp sport 7 tcp flags & (syn|ack) == (syn|ack) quota until 100 bytes drop'
    test.each([
      ['the first SYN before it leaves the host', 'output', syn],
      ['the first SYN on its way to the proxy', 'prerouting', `iif lo ${syn}`],
      ['the first SYN-ACK on its way back', 'input', `iifname wan0 ${synAck}`],
    ] as const)('%s: it comes again after a second, and all works', (_, hook, rule) =>
      withProxy(async (proxy) => {
        await using _ = await firewall(world.client, hook, rule)
        const result = await dial(world.client, target, { echo: 100_000 })
        expect(result).toMatchObject({ end: 'closed', received: 100_000, equal: true })
        expect(result.connectMs).toBeGreaterThan(900)
        expect(result.connectMs).toBeLessThan(2000)
        await sessionFrom(proxy, result.port)
      }),
    )
  })

  describe('among other programs', () => {
    test.each([0x7470_0080, 0x7470_0000, 1])('a mark forged by a program, %i, takes it past nobody', (mark) =>
      withProxy(async (proxy) => {
        const before = world.reached.length
        const result = await dial(world.client, target, { echo: 1000, mark, timeout: 1500 })
        const own = sessions(proxy).filter(({ source }) => source.port === result.port)
        // What the origin sees came from the proxy, never from the program.
        const reached = () => world.reached.length - before
        if (mark === 1) await expect.poll(reached).toBe(1)
        // Our own marks route it to this host at once; its source address then is none to reach an origin from.
        else expect(reached()).toBeLessThanOrEqual(own.length)
        expect(world.reached.map(({ fromPort }) => fromPort)).not.toContain(result.port)
        if (mark === 1) expect(result).toMatchObject({ received: 1000, equal: true })
      }),
    )

    test('a program that has forked twice and left its session is known', () =>
      withProxy(async (proxy) => {
        const daemon = '(setsid sh -c \'"$0" --echo 9 "$1" 7\' "$0" "$1" &)'
        await world.client.run('sh', ['-c', daemon, await fixture('client'), origin])
        await expect.poll(() => sessions(proxy, 'client')).toHaveLength(1)
      }))

    test('the scope of one cgroup leaves others alone: the origin sees their own ports', () => {
      const by = inCgroup(world.client, 'mine')
      return withProxy(
        async (proxy) => {
          const [inside, outside] = await Promise.all([
            dial(world.client, target, { echo: 1000, by }),
            dial(world.client, target, { echo: 1000 }),
          ])
          await sessionFrom(proxy, inside.port)
          expect(sessions(proxy)).toHaveLength(1)
          await expect.poll(() => world.reached.map(({ fromPort }) => fromPort)).toContain(outside.port)
        },
        { cgroup: `${world.client.cgroup}/mine` },
      )
    })

    test('connections from before the start live on, untouched, through start and stop', async () => {
      const held = await Promise.all(
        Array.from({ length: 3 }, () => holdDial(world.client, target, { echo: 300_000 })),
      )
      const release = async () => {
        const result = await held.pop()?.release()
        expect(result).toMatchObject({ end: 'closed', received: 300_000, equal: true })
        await expect.poll(() => world.reached.map(({ fromPort }) => fromPort)).toContain(result?.port)
      }
      await withProxy(async (proxy) => {
        await release()
        expect(sessions(proxy)).toEqual([])
        proxy.kill()
        await release()
      })
      await release()
    })
  })
})

test('a host without IPv6 is intercepted over IPv4', async () => {
  await using world = await World.create()
  await world.client.sh('sysctl -qw net.ipv6.conf.all.disable_ipv6=1')
  const before = await stateOf(world.client)
  await using proxy = await world.proxy({ interfaces: ['wan0'] })
  const result = await dial(world.client, [addresses[4].origin, 7], { echo: 100_000 })
  expect(result).toMatchObject({ end: 'closed', received: 100_000, equal: true })
  expect(await endFrom(proxy, result.port)).toMatchObject({ how: 'closed', carried: 'splice' })
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
  expect(await stateOf(world.client)).toEqual(before)
})

test('IPv6 that is switched on later is intercepted from then on', async () => {
  await using world = await World.create()
  await world.client.sh('sysctl -qw net.ipv6.conf.all.disable_ipv6=1')
  await using proxy = await world.proxy({ interfaces: ['wan0'] })
  await world.client.sh(`sysctl -qw net.ipv6.conf.all.disable_ipv6=0
    ip addr add 2001:db8:1::2/64 dev wan0 nodad
    ip -6 route add default via 2001:db8:1::1`)
  const marked = () => world.client.sh('ip -6 rule list table 29808')
  await expect.poll(marked, { timeout: 3000 }).toContain('0x7470')
  for (const family of [4, 6] as const) {
    const result = await dial(world.client, [addresses[family].origin, 7], { echo: 100_000 })
    expect(result).toMatchObject({ end: 'closed', received: 100_000, equal: true })
    expect(await endFrom(proxy, result.port)).toMatchObject({ how: 'closed', carried: 'splice' })
  }
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
})
