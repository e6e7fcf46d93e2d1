import { mkdirSync, readdirSync, rmdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { formatRule, type Packet } from '@tproxy/core'
import { matchRules } from '@tproxy/core/testing'
import * as fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { anyPacket, listOf, packetRule } from './local/rules.ts'
import { dial, holdDial, inCgroup } from './rig/client.ts'
import { shortConnections } from './rig/crowd.ts'
import { datagram, datagramEcho, echoRequest, rawFrames } from './rig/datagram.ts'
import type { Program } from './rig/host.ts'
import { frame } from './rig/packets.ts'
import { sessions } from './rig/sessions.ts'
import {
  addresses,
  type ProxyProgramOptions,
  type RuleCommand,
  startOrigin,
  tellRules,
  World,
} from './rig/world.ts'

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

let proxy: Program
/** A proxy for each test of a block. Nothing it does may end in an error that nobody handles. */
function withRules(rules: readonly string[], options: ProxyProgramOptions = {}): void {
  beforeEach(async () => {
    proxy = await world.proxy({ interfaces: ['wan0'], rules, ...options })
  })
  afterEach(async () => {
    expect(await proxy.stop()).toMatchObject({ code: 0 })
    expect(proxy.events.filter(({ event }) => event === 'uncaught')).toEqual([])
  })
}

const received = async (name: string, counter: 'rx' | 'tx') => {
  const text = await world.client.sh(`ip -s -j link show ${name}`)
  return (JSON.parse(text) as [{ stats64: Record<'rx' | 'tx', { packets: number }> }])[0].stats64[counter]
    .packets
}

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { client, origin, url } = addresses[family]

  describe('each action does what it says', () => {
    withRules([
      'reject dport 9 not tcp',
      'reject tcp dport 10',
      'drop dport 11',
      'direct dport 7',
      `reject proto ${family === 4 ? 'icmp' : 'icmpv6'} to ${origin}`,
    ])

    test('reject refuses a connection at once, as a closed port does', async () => {
      const started = performance.now()
      expect(await dial(world.client, [origin, 10])).toMatchObject({ end: 'ECONNREFUSED' })
      expect(performance.now() - started).toBeLessThan(800)
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
      expect(sessions(proxy)).toEqual([])
    })

    test('what no rule matches is proxied', async () => {
      const { stdout } = await world.client.run('curl', ['-sS', `http://${url}/`])
      expect(stdout).toContain('GET /')
      expect(sessions(proxy)).toHaveLength(1)
    })

    test('packets and bytes are counted by rule', async () => {
      await dial(world.client, [origin, 10])
      for (let i = 0; i < 3; i++) await datagram(world.client, [origin, 9], { bytes: 100 })
      const { counts } = await tellRules(proxy, {})
      const size = 100 + 8 + (family === 4 ? 20 : 40)
      expect(counts?.[1]).toEqual([3, 3 * size])
      expect(counts?.[2]?.[0]).toBe(1)
      expect(counts?.[4]).toEqual([0, 0])
    })
  })

  describe('what others open', () => {
    withRules([], { defaultAction: 'drop' })

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

  describe('rules look at who sends', () => {
    withRules([
      'reject tcp uid 1234',
      'reject udp uid 1235-1240 not uid 1236',
      'reject tcp gid 4321',
      'reject cgroup watched',
      'reject tcp process client dport 22',
      'reject mark 0x99 dport 7',
      'direct tcp dport 59999',
    ])
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
      expect((await tellRules(proxy, {})).counts?.[5]?.[0]).toBeGreaterThan(0)
    })

    test('by process and mark', async () => {
      expect((await dial(world.client, [origin, 22])).end).toBe('ECONNREFUSED')
      expect((await dial(world.client, [origin, 7], { mark: 0x99 })).end).toBe('ECONNREFUSED')
    })
  })

  describe('a cgroup', () => {
    test('counts with all below it, and is found when it is made later', async () => {
      const path = world.client.cgroup.slice(world.client.cgroup.lastIndexOf('/rig-'))
      await using started = await world.proxy({
        interfaces: ['wan0'],
        rules: [`reject cgroup ${path}/watched-${family}`],
      })
      const name = `watched-${family}/below`
      mkdirSync(`${world.client.cgroup}/${name}`, { recursive: true })
      await expect
        .poll(
          async () =>
            (
              await dial(world.client, [origin, 7], {
                by: inCgroup(world.client, name),
                send: 'x',
                shutdown: true,
              })
            ).end,
        )
        .toBe('ECONNREFUSED')
      expect((await dial(world.client, [origin, 7], { send: 'x', shutdown: true })).end).toBe('fin')
      for (const it of [name, `watched-${family}`]) rmdirSync(`${world.client.cgroup}/${it}`)
      await started.stop()
    })
  })

  test('a systemd unit that a rule names is found when it starts later', async () => {
    const unit = `later-${family}.service`
    await using started = await world.proxy({ interfaces: ['wan0'], rules: [`reject cgroup ${unit}`] })
    const name = `some.slice/${unit}`
    mkdirSync(`${world.client.cgroup}/some.slice`)
    await sleep(500)
    mkdirSync(`${world.client.cgroup}/${name}`)
    const end = async () =>
      (
        await dial(world.client, [origin, 7], {
          by: inCgroup(world.client, name),
          send: 'x',
          shutdown: true,
        })
      ).end
    await expect.poll(end).toBe('ECONNREFUSED')
    for (const it of [name, 'some.slice']) rmdirSync(`${world.client.cgroup}/${it}`)
    await started.stop()
  })

  test('when the interface of a redirect is gone, it is said, and the other rules keep up', async () => {
    await world.client.sh('ip link add out0 type dummy || ip link add out0 type veth peer name out1')
    const path = world.client.cgroup.slice(world.client.cgroup.lastIndexOf('/rig-'))
    const name = `new-${family}`
    const rules = ['redirect:out0 udp dport 9', `reject cgroup ${path}/${name}`]
    await using started = await world.proxy({ interfaces: ['wan0'], rules })
    await world.client.sh('ip link del out0')
    const said = 'what is redirected to out0 is lost: that interface is gone'
    await started.until(({ stdout }) => stdout.includes(said), 'a warning')
    mkdirSync(`${world.client.cgroup}/${name}`)
    const by = inCgroup(world.client, name)
    await expect
      .poll(async () => (await dial(world.client, [origin, 7], { by, send: 'x', shutdown: true })).end)
      .toBe('ECONNREFUSED')
    rmdirSync(`${world.client.cgroup}/${name}`)
    await started.stop()
  })

  describe('redirect', () => {
    beforeAll(() =>
      world.client.sh('ip link add in0 type veth peer name in1; ip link set in0 up; ip link set in1 up'),
    )
    afterAll(() => world.client.sh('ip link del in0'))
    withRules(['redirect:wan1 tcp dport 7', 'redirect-into:in0 udp dport 7'])

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

describe.each([
  ['a fragment', '4500003c00012000'],
  ['a whole packet', '4500003c00010000'],
] as const)('%s whose headers say more than there is', (_, start) => {
  withRules(['drop tcp dport 11', 'direct'])

  test('is no way around a drop', async () => {
    const { client, origin } = addresses[4]
    const mac = (await world.client.sh("ip -br link show wan0 | awk '{print $3}'")).replaceAll(':', '').trim()
    const hex = (address: string) => Buffer.from(address.split('.').map(Number)).toString('hex')
    const to = (port: number) => {
      const header = `${'ffffffffffff'}${mac}0800${start}40060000${hex(client)}${hex(origin)}`
      const ports = Buffer.from([0x9c, 0x40, port >> 8, port & 255]).toString('hex')
      return Buffer.from(`${header}${ports}${'00'.repeat(8)}50020000${'00'.repeat(24)}`, 'hex')
    }
    // From an IP header without the ports to a TCP header without its last byte.
    const cut = [14, 20, 33, 34, 36, 37, 47, 53].map((length) => to(11).subarray(0, length))
    const frames = [...cut, to(11), to(12)]
    const out = await rawFrames(world.client, 'wan0', frames)
    expect(out).toEqual([...Array(frames.length - 1).fill(false), true])
  })
})

describe('random rules', () => {
  withRules([])

  test('let out of the interface what they should, and nothing else', { timeout: 60_000 }, async () => {
    let [sent, out] = [0, 0]
    for (const [index, drawn] of fc.sample(listOf(packetRule), 15).entries()) {
      const rules = drawn.map((each, number) => {
        const { via: _, log: __, ...rule } = each
        return { ...rule, action: (number + index) % 2 === 0 ? ('direct' as const) : ('drop' as const) }
      })
      const fallback = index % 3 === 0 ? 'drop' : 'direct'
      // In IPv6, 0 is an extension header. Who sends raw frames is root, by a socket without a mark.
      const packets = fc
        .sample(anyPacket, 60)
        .filter(({ ip, protocol }) => ip === 4 || protocol !== 0)
        .map((each): Packet => {
          const { uid: _, gid: __, process: ___, cgroups: ____, ...packet } = each
          return { ...packet, mark: 0, interface: 'wan0' }
        })
      const { error } = await tellRules(proxy, { rules: rules.map(formatRule), default: fallback })
      expect(error).toBeUndefined()
      const found = await rawFrames(
        world.client,
        'wan0',
        packets.map((packet) => frame(packet)),
      )
      for (const [at, packet] of packets.entries()) {
        const right = matchRules({ rules, default: fallback }, packet)
        expect({ rules, packet, out: found[at] }).toEqual({ rules, packet, out: right.action === 'direct' })
        sent++
        if (found[at]) out++
      }
    }
    expect(out).toBeGreaterThan(sent / 10)
    expect(sent - out).toBeGreaterThan(sent / 10)
  })
})

describe('log', () => {
  withRules(['drop udp dport 7 log', 'direct tcp dport 7 log'])

  test('reports each connection and each datagram with its rule and program', async () => {
    const [host, { origin }] = [world.client, addresses[4]]
    await datagram(host, [origin, 7])
    await dial(host, [origin, 7], { echo: 50_000, shutdown: true })
    const logged = () => proxy.events.filter(({ event }) => event === 'logged')
    await proxy.until(() => logged().length >= 2, 'both in the log')
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

describe('while it runs', () => {
  const { origin } = addresses[4]
  const fillers = (count: number, base: number) =>
    Array.from({ length: count }, (_, i) => `drop tcp to 10.${base}.${i >> 8}.${i & 255} dport ${1000 + i}`)
  withRules([])

  test('lists are replaced as a whole: no connection fails, whichever list it met', {
    timeout: 120_000,
  }, async () => {
    // Each list lets port 7 through by another rule and drops the rest: parts of both together would drop it.
    const one = [...fillers(300, 1), 'direct tcp dport 7', 'drop tcp']
    const two = [...fillers(900, 2), 'drop tcp not dport 7', 'proxy tcp dport 7']
    await tellRules(proxy, { rules: one, default: 'drop' })
    let running = true
    const load = (async () => {
      const results = []
      while (running)
        results.push(
          await shortConnections(world.client, { address: origin, port: 7, count: 500, parallel: 20 }),
        )
      return results
    })()
    for (let swap = 0; swap < 40; swap++) {
      const { error } = await tellRules(proxy, { rules: swap % 2 === 0 ? two : one, default: 'drop' })
      expect(error).toBeUndefined()
      await sleep(20)
    }
    running = false
    const results = await load
    expect(results.length).toBeGreaterThan(2)
    for (const result of results)
      expect(result).toMatchObject({ succeeded: 500, failed: 0, unanswered: 0, stalled: 0 })
  })

  test('what is established keeps its decision, unless it is asked to end', async () => {
    await tellRules(proxy, { rules: ['direct dport 7'] })
    const straight = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await tellRules(proxy, { rules: [] })
    const proxied = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await expect.poll(() => sessions(proxy).length).toBe(1)

    await tellRules(proxy, { rules: ['reject tcp dport 7'] })
    expect((await dial(world.client, [origin, 7])).end).toBe('ECONNREFUSED')
    // The client closes when all of its bytes are back.
    expect(await straight.release()).toMatchObject({ end: 'closed', received: 1000, equal: true })
    expect(await proxied.release()).toMatchObject({ end: 'closed', received: 1000, equal: true })
  })

  test('with reset, what the new rules decide differently ends, and the rest stays', async () => {
    const proxied = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await expect.poll(() => sessions(proxy).length).toBe(1)
    await tellRules(proxy, { rules: ['direct dport 7', 'direct dport 22'] })
    const straight = await holdDial(world.client, [origin, 7], { echo: 1000 })
    const kept = await holdDial(world.client, [origin, 22], { read: 1 })
    await tellRules(proxy, { rules: ['reject dport 7', 'direct dport 22'], reset: true })
    expect((await straight.release()).end).toBe('ECONNRESET')
    expect((await proxied.release()).end).toBe('ECONNRESET')
    expect(await kept.release()).toMatchObject({ end: 'closed' })
  })

  test('with reset, the same rules end nothing, whatever they look at', async () => {
    const rules = ['proxy mark 0x99', 'direct']
    await tellRules(proxy, { rules })
    const held = await holdDial(world.client, [origin, 7], { echo: 1000, mark: 0x99 })
    await expect.poll(() => sessions(proxy).length).toBe(1)
    await tellRules(proxy, { rules, reset: true })
    expect(await held.release()).toMatchObject({ end: 'closed', received: 1000, equal: true })
  })

  test('a rule has only what its own list decided', async () => {
    const flood = `
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('${origin}', 9)); print('ready', flush=True)
while True:
  for i in range(20): s.send(b'x')
  time.sleep(.001)`
    const list = (port: number) => [`drop udp dport ${port}`, ...fillers(2000, 1), 'drop udp']
    const first = async (command: RuleCommand = {}) => (await tellRules(proxy, command)).counts?.[1]?.[0]
    const [one, two] = [{ rules: list(9) }, { rules: list(1) }]
    await first(one)
    await using sender = world.client.spawn('/usr/bin/python3', ['-c', flood])
    await sender.until(({ stdout }) => stdout.includes('ready'), 'the sender')
    for (let swap = 0; swap < 5; swap++) {
      await sleep(100)
      expect(await first(two)).toBe(0)
      await sleep(100)
      expect(await first()).toBe(0)
      await first(one)
    }
    await sleep(100)
    expect(await first()).toBeGreaterThan(100)
  })

  test('a list for which there is no memory leaves the old one in force', async () => {
    await tellRules(proxy, { rules: ['reject udp dport 9'] })
    const open = new Set(readdirSync(`/proc/${proxy.pid}/fd`).map(Number))
    const free = Array.from({ length: open.size + 1 }, (_, fd) => fd).find((fd) => !open.has(fd))
    const limits = await world.client.sh(
      `prlimit --pid ${proxy.pid} --nofile --noheadings --output SOFT,HARD`,
    )
    const [soft, hard] = limits.trim().split(/\s+/)
    const limit = (files: string) => world.client.sh(`prlimit --pid ${proxy.pid} --nofile=${files}:${hard}`)
    await limit(`${free}`)
    const { error } = await tellRules(proxy, { rules: ['drop tcp dport 1', 'drop udp dport 9'] })
    await limit(`${soft}`)
    expect(error).toContain('create a map for the rules: EMFILE')
    expect(await datagram(world.client, [origin, 9])).toBe('ECONNREFUSED')
    const { counts } = await tellRules(proxy, {})
    expect(counts?.map(([packets]) => packets)).toEqual([0, 1])
  })

  test('a list that is not valid leaves the old one in force', async () => {
    await tellRules(proxy, { rules: ['reject tcp dport 7'] })
    const answer = await tellRules(proxy, { rules: ['drop tcp', 'drop dport 70000'] })
    expect(answer.error).toMatch(/expected a port.*, got "70000"/)
    expect((await dial(world.client, [origin, 7])).end).toBe('ECONNREFUSED')
    const unknown = await tellRules(proxy, { rules: ['proxy via nobody'] })
    expect(unknown.error).toContain('rule 1: there is no plugin nobody')
  })
})
