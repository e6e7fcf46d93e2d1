import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial } from './rig/client.ts'
import { shortConnections } from './rig/crowd.ts'
import { fixture } from './rig/fixture.ts'
import type { Program } from './rig/host.ts'
import { digest, generate } from './rig/stream.ts'
import { addresses, memory, World } from './rig/world.ts'

let world: World
let proxy: Program
let client: string
beforeAll(async () => {
  world = await World.create()
  proxy = await world.proxy({ interfaces: ['wan0', 'wan1'] })
  client = await fixture('client')
})
afterAll(async () => {
  expect(proxy.events.filter(({ event }) => event === 'uncaught')).toEqual([])
  await world.close()
})

/** SHA-256 of what port 19 of the origin pours out. */
function poured(size: number): string {
  const hash = createHash('sha256')
  const block = 1 << 16
  for (let sent = 0; sent < size; sent += block) {
    const line = `${String(sent / block).padStart(15, '0')}\n`
    hash.update(Buffer.alloc(Math.min(block, size - sent), line))
  }
  return hash.digest('hex')
}

/** Sends so many bytes to the origin, and returns what it says it got. */
async function sendUp(address: string, size: number): Promise<string> {
  const pipe = `${generate(size)} | ${client} --pipe --timeout 60000 ${address} 9 2>/dev/null`
  const { stdout } = await world.client.run('bash', ['-c', pipe], { timeoutMs: 60_000 })
  return stdout
}

/** Has the origin send so many bytes, and returns the SHA-256 of what came. */
async function bringDown(address: string, size: number): Promise<string> {
  const pipe = `echo ${size} | ${client} --pipe --timeout 60000 ${address} 19 2>/dev/null | sha256sum`
  const { stdout } = await world.client.run('bash', ['-c', pipe], { timeoutMs: 60_000 })
  return stdout.split(' ')[0] ?? ''
}

/** Runs Python and returns what it prints as JSON. */
async function python(script: string): Promise<Record<string, number>> {
  const { stdout, stderr } = await world.client.run('python3', ['-c', script])
  expect(stderr).toBe('')
  return JSON.parse(stdout)
}

const MB = 1_000_000

test('1 GB arrives at the server as it was sent', async () => {
  const size = 1000 * MB
  expect(await sendUp(addresses[6].origin, size)).toBe(`${digest(size)} ${size}\n`)
})

test('1 GB arrives at the client as it was sent', async () => {
  const size = 1000 * MB
  expect(await bringDown(addresses[4].origin, size)).toBe(poured(size))
})

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]

  test('a static program, into which nothing can be preloaded, is intercepted and answered', async () => {
    const before = proxy.events.filter(({ event }) => event === 'session').length
    const result = await shortConnections(world.client, { address: origin, port: 7, count: 20, parallel: 5 })
    expect(result).toMatchObject({ succeeded: 20, failed: 0, error: '', unanswered: 0, stalled: 0 })
    const sessions = proxy.events.filter(({ event }) => event === 'session').slice(before)
    expect(sessions.map((session) => session.process.name)).toEqual(Array(20).fill('crowd'))
  })

  test('200 MB each way at once on one connection come back as they went', async () => {
    const result = await dial(world.client, [origin, 7], { echo: 200 * MB, timeout: 20_000 })
    expect(result).toMatchObject({ end: 'closed', received: 200 * MB, equal: true })
  })

  test('writes of random sizes, some of one byte and some of many segments, keep their bytes in order', async () => {
    const result = await python(`
import hashlib, json, random, socket, threading
random.seed(${family})
s = socket.create_connection(('${origin}', 7), 10)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
sent, size = hashlib.sha256(), 0
def send():
  global size
  for i in range(3000):
    data = random.randbytes(random.choice([1, 2, 100, 1448, 1449, 16384, random.randint(1, 100000)]))
    sent.update(data); size += len(data); s.sendall(data)
  s.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send); sender.start()
got, length = hashlib.sha256(), 0
while data := s.recv(random.randint(1, 100000)): got.update(data); length += len(data)
sender.join()
print(json.dumps({'equal': got.digest() == sent.digest(), 'missing': size - length, 'enough': size > 10_000_000}))`)
    expect(result).toEqual({ equal: true, missing: 0, enough: true })
  })

  test('a server that does not read stalls the client; the proxy does not hold what it sends', async () => {
    const before = await memory(world.client, proxy.pid)
    const sender = world.client.spawn('python3', [
      '-u',
      '-c',
      `
import json, socket, sys
s = socket.create_connection(('${origin}', 1005), 10); s.settimeout(3)
sent = 0
try:
  while sent < ${500 * MB}: sent += s.send(bytes(1 << 16))
except TimeoutError: pass
print(json.dumps({'sent': sent})); sys.stdin.read()`,
    ])
    await sender.until(({ events }) => events.length > 0, 'a stall', 20_000)
    const after = await memory(world.client, proxy.pid)
    expect(sender.events[0].sent).toBeGreaterThan(0)
    expect(sender.events[0].sent).toBeLessThan(64 * MB)
    expect(after.rssKb - before.rssKb).toBeLessThan(64 * 1024)
    await sender.stop('SIGKILL')
  })

  test('a client that does not read stalls the server, and gets all once it does', async () => {
    const size = 300 * MB
    const before = await memory(world.client, proxy.pid)
    const reader = world.client.spawn('python3', [
      '-u',
      '-c',
      `
import hashlib, json, socket, sys
s = socket.create_connection(('${origin}', 19), 10); s.sendall(b'${size}')
print('{}'); sys.stdin.read()
got = hashlib.sha256()
while data := s.recv(1 << 18): got.update(data)
print(json.dumps({'hash': got.hexdigest()}))`,
    ])
    await reader.until(({ events }) => events.length > 0, 'a request')
    await new Promise((resolve) => setTimeout(resolve, 2000))
    const after = await memory(world.client, proxy.pid)
    expect(after.rssKb - before.rssKb).toBeLessThan(64 * 1024)
    reader.child.stdin?.end()
    await reader.exited
    expect(reader.events[1]).toEqual({ hash: poured(size) })
  })

  test('a link of 20 Mbit/s carries as much, undamaged', async () => {
    await world.client.sh('tc qdisc add dev wan0 root tbf rate 20mbit burst 32k latency 50ms')
    try {
      const started = performance.now()
      const options = { echo: 4 * MB, timeout: 10_000 }
      expect(await dial(world.client, [origin, 7], options)).toMatchObject({
        end: 'closed',
        received: 4 * MB,
        equal: true,
      })
      const mbits = (4 * 8) / ((performance.now() - started) / 1000)
      expect(mbits).toBeLessThan(21)
      expect(mbits).toBeGreaterThan(10)
    } finally {
      await world.client.sh('tc qdisc del dev wan0 root')
    }
  })

  test('a network that loses 1 % of all packets costs time but no bytes', async () => {
    const size = 20 * MB
    await world.internet.sh(`
      nft add table inet loss
      nft add chain inet loss in '{ type filter hook prerouting priority 0; }'
      nft add chain inet loss out '{ type filter hook postrouting priority 0; }'
      nft add rule inet loss in iifname eth0 meta l4proto tcp numgen random mod 100 0 counter drop
      nft add rule inet loss out oifname eth0 meta l4proto tcp numgen random mod 100 0 counter drop`)
    try {
      expect(await sendUp(origin, size)).toBe(`${digest(size)} ${size}\n`)
      expect(await bringDown(origin, size)).toBe(poured(size))
      const rules = await world.internet.sh('nft list table inet loss')
      expect(rules.match(/counter packets [1-9]/g)).toHaveLength(2)
    } finally {
      await world.internet.sh('nft delete table inet loss')
    }
  })
})
