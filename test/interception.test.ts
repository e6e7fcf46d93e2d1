import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Program } from './rig/host.ts'
import { addresses, World } from './rig/world.ts'

let world: World
let proxy: Program
beforeAll(async () => {
  world = await World.create()
  proxy = await world.proxy({ interfaces: ['wan0', 'wan1'], plugin: 'direct' })
})
afterAll(async () => {
  expect(proxy.events.filter(({ event }) => event === 'uncaught')).toEqual([])
  await world.close()
})

/** The session of the connection that was made last, once it has ended. */
async function lastSession(port: number): Promise<Record<string, unknown> & { id: number }> {
  const find = () => proxy.events.findLast((e) => e.event === 'session' && e.destination.port === port)
  await proxy.until(
    () => find() !== undefined && proxy.events.some((e) => e.event === 'end' && e.id === find().id),
    `an ended session to port ${port}`,
  )
  return find()
}

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { url, origin, client, second } = addresses[family]

  test('curl gets a page over HTTP, and the session knows where it wanted to go and who it was', async () => {
    const { stdout } = await world.client.run('curl', ['-sS', `http://${url}/hello`])
    expect(stdout).toBe(`GET /hello from ${family === 4 ? '::ffff:' : ''}${client}\n`)
    expect(await lastSession(80)).toMatchObject({
      source: { address: client, family },
      destination: { address: origin, port: 80, family },
      interface: 'wan0',
      verdict: 'direct',
      process: { name: 'curl', uid: 0, gid: 0, cgroup: world.client.cgroup.replace(/^.*\/rig-/, '/rig-') },
    })
  })

  test('curl gets a page over HTTPS', async () => {
    const { stdout, stderr } = await world.client.run('curl', ['-sSk', `https://${url}/secret`])
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^GET \/secret from /)
    await lastSession(443)
  })

  test.each([
    ['wan0', client],
    ['wan1', second],
  ])(
    'a socket bound to %s is intercepted there, and the destination sees its address',
    async (device, address) => {
      const { stdout, stderr } = await world.client.run('curl', [
        '-sS',
        '-m',
        '5',
        '--interface',
        device,
        `http://${url}/`,
      ])
      expect(stderr).toBe('')
      expect(stdout).toContain(` from ${family === 4 ? '::ffff:' : ''}${address}\n`)
      expect(await lastSession(80)).toMatchObject({ interface: device, source: { address } })
    },
  )

  test('Python works', async () => {
    const script = `import urllib.request; print(urllib.request.urlopen('http://${url}/py', timeout=5).read().decode())`
    const { stdout } = await world.client.run('python3', ['-c', script])
    expect(stdout).toMatch(/^GET \/py from/)
    expect(await lastSession(80)).toMatchObject({ process: { name: expect.stringMatching(/^python/) } })
  })

  test('a server that speaks first is heard at once', async () => {
    const { stdout } = await world.client.run('python3', [
      '-c',
      `
import socket, time
s = socket.create_connection(('${origin}', 22), 5)
t = time.time(); print(s.recv(100).decode().strip(), time.time() - t < 0.5)
s.sendall(b'hi'); print(s.recv(100).decode())`,
    ])
    expect(stdout).toBe('SSH-2.0-rig True\nhi\n')
  })

  test('a program of another user shows as that user', async () => {
    const { code } = await world.client.run('setpriv', [
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
      'curl',
      '-sS',
      `http://${url}/`,
    ])
    expect(code).toBe(0)
    expect(await lastSession(80)).toMatchObject({ process: { uid: 65534, gid: 65534 } })
  })

  test('a refused connection is refused, at once', async () => {
    const { stdout } = await world.client.run('python3', [
      '-c',
      `
import socket, time
t = time.time()
try:
  s = socket.create_connection(('${origin}', 81), 5)
  s.recv(1)
except OSError as e: print(type(e).__name__, time.time() - t < 0.5)`,
    ])
    expect(stdout).toBe('ConnectionRefusedError True\n')
    const { id } = await lastSession(81)
    expect(proxy.events.find((e) => e.event === 'end' && e.id === id)).toMatchObject({
      how: 'failed',
      error: expect.stringContaining('ECONNREFUSED'),
    })
  })

  test('a client that comes back from the same port after the server closed first is served as if it were direct', async () => {
    const script = `
import socket, time
for i in range(10):
  t = time.time()
  s = socket.socket(socket.AF_INET${family === 6 ? '6' : ''}); s.settimeout(3)
  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  s.bind(('', ${20_000 + family}))
  s.connect(('${origin}', 1004))
  assert s.recv(10) == b'bye'; assert s.recv(10) == b''
  s.close()
  print('slow' if time.time() - t > 0.3 else 'ok')
  time.sleep(0.05)`
    const { stdout, stderr } = await world.client.run('python3', ['-c', script])
    expect(stderr).toBe('')
    expect(stdout).toBe('ok\n'.repeat(10))
  })

  test('the listener itself, dialled directly, closes at once and keeps nothing', async () => {
    const loopback = family === 4 ? '127.0.0.1' : '::1'
    const script = `
import socket, subprocess, os
out = subprocess.run(['ss', '-ltnpH', '-f', 'inet${family === 6 ? '6' : ''}'], capture_output=True, text=True).stdout
ports = [l.split()[3].rsplit(':', 1)[1] for l in out.splitlines() if 'pid=${'${PID}'}' in l]
assert len(ports) == 2, out
for port in ports:
  s = socket.socket(socket.AF_INET${family === 6 ? '6' : ''}); s.settimeout(3)
  try: s.connect(('${loopback}', int(port))); print(s.recv(1))
  except ConnectionResetError: print('reset')`
    const before = proxy.events.filter(({ event }) => event === 'session').length
    const { stdout, stderr } = await world.client.run('python3', [
      '-c',
      script.replace('${PID}', String(proxy.pid)),
    ])
    expect(stderr).toBe('')
    expect(stdout).toBe('reset\nreset\n')
    expect(proxy.events.filter(({ event }) => event === 'session')).toHaveLength(before)
  })
})
