import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { holdConnections, shortConnections } from './rig/crowd.ts'
import { firewall } from './rig/firewall.ts'
import { fixture } from './rig/fixture.ts'
import type { Program } from './rig/host.ts'
import { addresses, type Memory, memory, World } from './rig/world.ts'

let world: World
let proxy: Program
beforeAll(async () => {
  world = await World.create()
  proxy = await world.proxy({ interfaces: ['wan0'] })
})
afterAll(async () => {
  expect(proxy.events.filter(({ event }) => event === 'uncaught')).toEqual([])
  await world.close()
})

const sessionCount = () => proxy.stdout.split('"event":"session"').length - 1

/** Waits until the proxy has as many descriptors open as before, and looks at its memory then. */
async function settle(before: Memory): Promise<Memory> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const now = await memory(world.client, proxy.pid)
    if (now.fds <= before.fds) return now
    await sleep(100)
  }
  return memory(world.client, proxy.pid)
}

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin, url } = addresses[family]

  test('10 000 short connections, 50 at a time: none fails or stalls, and nothing of them stays', async () => {
    // What the first ones make node allocate is no leak.
    await shortConnections(world.client, { address: origin, port: 7, count: 500, parallel: 50 })
    await sleep(200)
    const before = await memory(world.client, proxy.pid)
    const result = await shortConnections(world.client, {
      address: origin,
      port: 7,
      count: 10_000,
      parallel: 50,
    })
    expect(result).toMatchObject({ succeeded: 10_000, failed: 0, unanswered: 0, stalled: 0 })
    const after = await settle(before)
    expect(after.fds).toBe(before.fds)
    expect(after.rssKb - before.rssKb).toBeLessThan(60 * 1024)
  })

  test('5 000 connections open at once all carry their bytes, and nothing of them stays', async () => {
    const before = await memory(world.client, proxy.pid)
    const options = { address: origin, port: 7, count: 5000, parallel: 200 }
    const { held, exchange } = await holdConnections(world.client, options)
    expect(held).toBe(5000)
    // For the client a connection is open before the proxy has accepted it and reached the origin.
    const open = async () => (await memory(world.client, proxy.pid)).fds
    await expect.poll(open, { timeout: 20_000, interval: 200 }).toBeGreaterThanOrEqual(before.fds + 10_000)
    expect(await exchange()).toMatchObject({ succeeded: 5000, failed: 0, unanswered: 0 })
    expect((await settle(before)).fds).toBe(before.fds)
  })

  test('more connections than the accept queue holds, while the proxy sleeps, all work in the end', async () => {
    const before = await memory(world.client, proxy.pid)
    proxy.kill('SIGSTOP')
    const opened = holdConnections(world.client, { address: origin, port: 7, count: 6000, parallel: 6000 })
    try {
      await sleep(2000)
      // The queue is full: some of them are still knocking.
      const { stdout } = await world.client.run('ss', [
        ...['-Htn', 'state', 'syn-sent', 'dst', family === 4 ? origin : `[${origin}]`],
      ])
      expect(stdout.split('\n').length - 1).toBeGreaterThan(0)
    } finally {
      proxy.kill('SIGCONT')
    }
    const { held, exchange } = await opened
    expect(held).toBe(6000)
    expect(await exchange()).toMatchObject({ succeeded: 6000, failed: 0, unanswered: 0, error: '' })
    expect((await settle(before)).fds).toBe(before.fds)
  })

  test('a flood of 20 000 SYNs makes no session and does not hinder the next connection', async () => {
    const before = await memory(world.client, proxy.pid)
    const sessions = sessionCount()
    // The host would answer the proxy's SYN-ACKs with resets and so clear the table of half-open connections.
    await using _ = await firewall(world.client, 'output', 'tcp flags & rst == rst drop')
    const flood = await world.client.run(await fixture('flood'), [origin, '7', '20000'])
    expect(flood).toMatchObject({ code: 0, stderr: '' })
    expect(sessionCount()).toBe(sessions)
    expect((await memory(world.client, proxy.pid)).fds).toBe(before.fds)
    const { stdout } = await world.client.run('curl', ['-sS', '-m', '5', `http://${url}/after`])
    expect(stdout).toMatch(/^GET \/after/)
    await proxy.until(() => sessionCount() > sessions, 'a session')
    expect(proxy.events.findLast(({ event }) => event === 'session')).toMatchObject({
      process: { name: 'curl' },
    })
  })

  test('200 programs that connect at the same instant are all served', async () => {
    const { stdout, stderr } = await world.client.run('python3', [
      '-c',
      `
import socket, threading
barrier, good = threading.Barrier(200), []
def one(i):
  s = socket.socket(socket.AF_INET${family === 6 ? '6' : ''}); s.settimeout(5)
  barrier.wait()
  s.connect(('${origin}', 7))
  text = b'number %d' % i
  s.sendall(text)
  if s.recv(100) == text: good.append(i)
threads = [threading.Thread(target=one, args=(i,)) for i in range(200)]
for t in threads: t.start()
for t in threads: t.join()
print(len(good))`,
    ])
    expect(stderr).toBe('')
    expect(stdout).toBe('200\n')
  })
})
