import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Dial, type Dialled, dial } from './rig/client.ts'
import { firewall } from './rig/firewall.ts'
import { fixture } from './rig/fixture.ts'
import type { Host, Program } from './rig/host.ts'
import { endFrom } from './rig/sessions.ts'
import { addresses, World } from './rig/world.ts'

let world: World
let proxy: Program
let slow: Program
beforeAll(async () => {
  await fixture('client')
  world = await World.create()
  proxy = await world.proxy({ interfaces: ['wan0'] })
  // An echo server with a small window, which takes its time and twice rests for half a second.
  slow = world.internet.spawn('python3', [
    '-uc',
    `
import itertools, socket, threading, time
def echo(peer):
  for turn in itertools.count():
    data = peer.recv(65536)
    if not data: break
    peer.sendall(data)
    time.sleep(0.5 if turn in (5, 30) else 0.005)
listener = socket.socket(socket.AF_INET6)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
listener.bind(('::', 2007))
listener.listen()
print('ready')
while True:
  threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()`,
  ])
  await slow.until(({ stdout }) => stdout.includes('ready'), 'the slow server')
})
afterAll(async () => {
  expect(proxy.events.filter(({ event }) => event === 'uncaught' || event === 'warning')).toEqual([])
  await world.close()
})

const MB = 1_000_000

/** With a sysctl that differs for as long as the value lives. */
async function sysctl(host: Host, name: string, value: string): Promise<AsyncDisposable> {
  const before = (await host.sh(`sysctl -n ${name}`)).trim()
  await host.sh(`sysctl -qw ${name}='${value}'`)
  return {
    async [Symbol.asyncDispose]() {
      await host.sh(`sysctl -qw ${name}='${before}'`)
    },
  }
}

/** A counter of nstat(8) since the host began. */
async function counted(host: Host, name: string): Promise<number> {
  return Number((await host.sh(`nstat -asz ${name}`)).split(/\s+/).at(-3))
}

/** Echoes so many bytes, all of which have to come back, and tells how the proxy carried them. */
async function echo(
  address: string,
  size: number,
  { port = 7, ...options }: Dial & { port?: number } = {},
): Promise<Record<string, unknown>> {
  const result: Dialled = await dial(world.client, [address, port], {
    timeout: 20_000,
    ...options,
    echo: size,
  })
  expect(result).toMatchObject({ end: 'closed', received: size, equal: true })
  return endFrom(proxy, result.port)
}

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]

  test('a program that reads slowly, or rests, gets every byte, with a window of whatever size', async () => {
    const zeros = await counted(world.client, 'TcpExtTCPToZeroWindowAdv')
    expect(await echo(origin, 500_000, { rcvbuf: 65536, slow: 300 })).toMatchObject({ carried: 'splice' })
    await using _set = await sysctl(world.client, 'net.ipv4.tcp_window_scaling', '0')
    const ends = await Promise.all([
      echo(origin, 300_000, { rcvbuf: 2048, slow: 5 }),
      echo(origin, 8000, { rcvbuf: 2048, slow: 1000 }),
    ])
    for (const end of ends) expect(end).toMatchObject({ how: 'closed', carried: 'splice' })
    expect(await counted(world.client, 'TcpExtTCPToZeroWindowAdv')).toBeGreaterThan(zeros + 3)
  })

  test('an upstream that reads slowly, and rests, gets every byte through a window of eight kilobytes', async () => {
    await using _set = await sysctl(world.client, 'net.ipv4.tcp_window_scaling', '0')
    const zeros = await counted(world.internet, 'TcpExtTCPToZeroWindowAdv')
    expect(await echo(origin, 600_000, { port: 2007 })).toMatchObject({ carried: 'splice' })
    expect(await counted(world.internet, 'TcpExtTCPToZeroWindowAdv')).toBeGreaterThan(zeros)
  })

  test('a window that is small in units of a kilobyte is not scaled, but relayed', async () => {
    await using _set = await sysctl(world.client, 'net.ipv4.tcp_rmem', '4096 131072 33554432')
    const ends = await Promise.all([
      echo(origin, 50_000, { port: 2007 }),
      echo(origin, 50_000, { rcvbuf: 2048, slow: 5 }),
    ])
    const relayed = { carried: 'relay', notSpliced: 'a window is too small to be scaled' }
    for (const end of ends) expect(end).toMatchObject(relayed)
  })

  test.each([
    ['has no window scaling', 'window_scaling', '0'],
    ['scales its window least', 'rmem', '4096 32768 32768'],
    ['scales its window most', 'rmem', '4096 131072 1073741824'],
  ])('an upstream that %s gets every byte', async (_, name, value) => {
    await using _set = await sysctl(world.internet, `net.ipv4.tcp_${name}`, value)
    expect(await echo(origin, 5 * MB)).toMatchObject({ carried: 'splice' })
  })

  test('an upstream that takes smaller segments is relayed to', async () => {
    await using _route = await advertised(world.internet, addresses[family].client, family)
    expect(await echo(origin, MB)).toMatchObject({
      carried: 'relay',
      notSpliced: 'the upstream takes smaller segments',
    })
  })

  test('a program that takes smaller segments is spliced', async () => {
    expect(await echo(origin, 5 * MB, { maxseg: 500 })).toMatchObject({ carried: 'splice' })
  })

  test.each([
    ['1', '0', 'relay', 'congestion notification differs'],
    ['0', '1', 'splice', undefined],
    ['1', '1', 'splice', undefined],
  ])(
    'with explicit congestion notification %s here and %s there every byte arrives',
    async (here, there, carried, notSpliced) => {
      await using _here = await sysctl(world.client, 'net.ipv4.tcp_ecn', here)
      await using _there = await sysctl(world.internet, 'net.ipv4.tcp_ecn', there)
      const ip = family === 4 ? 'ip' : 'ip6'
      await using _marking = await firewall(
        world.internet,
        'prerouting',
        `tcp dport 7 ${ip} ecn ect0 numgen random mod 5 < 1 ${ip} ecn set ce`,
      )
      const delivered = await counted(world.client, 'TcpExtTCPDeliveredCE')
      const end = await echo(origin, 5 * MB)
      expect([end['carried'], end['notSpliced']]).toEqual([carried, notSpliced])
      const told = (await counted(world.client, 'TcpExtTCPDeliveredCE')) - delivered
      expect(told > 0).toBe(here === '1' && there === '1')
    },
  )
})

/** Has a host say to another that it takes segments of 500 bytes. */
async function advertised(host: Host, to: string, family: 4 | 6): Promise<AsyncDisposable> {
  const route = `ip -${family} route`
  await host.sh(`${route} add ${to} dev eth0 advmss 500`)
  return {
    async [Symbol.asyncDispose]() {
      await host.sh(`${route} del ${to} dev eth0 advmss 500`)
    },
  }
}
