import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { events } from './rig/lines.ts'
import { microsocks } from './rig/servers.ts'
import { start } from './rig/tproxy-run.ts'
import { addresses, World } from './rig/world.ts'

// What the kernel says for a socket that is gone belongs to the connection, too.

let world: World
beforeAll(async () => {
  world = await World.create()
  await world.client.sh('sysctl -qw net.ipv4.tcp_fin_timeout=2')
})
afterAll(() => world?.close())

/** Answers one question by SOCKS, and closes. */
const impatient = `
import socket, sys, threading
def serve(peer):
  peer.recv(300); peer.send(b'\\x05\\x00')
  peer.recv(300); peer.send(b'\\x05\\x00\\x00\\x01' + bytes(6))
  peer.recv(100); peer.send(b'answer'); peer.close()
listener = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((sys.argv[1], 1080)); listener.listen()
print('ready', flush=True)
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()`

/** Keeps a connection that its other side has ended, as pools do, and writes when that has forgotten it. */
const late = `
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
s.connect((sys.argv[1], 2100)); s.send(b'hello')
assert s.recv(100) == b'answer' and s.recv(100) == b''
time.sleep(4); s.send(b'again'); began = time.time()
while not s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) and time.time() - began < 8: time.sleep(.05)
print(time.time() - began)`

/** Sends without end. */
const endless = `
import socket
listener = socket.socket(socket.AF_INET6); listener.bind(('::', 2100)); listener.listen()
print('ready', flush=True)
while True:
  peer = listener.accept()[0]
  try:
    while True: peer.send(b'x' * 1000)
  except OSError as error: print(error.strerror, flush=True)`

/** Reads for a second, and is gone without a word (TCP_REPAIR). */
const vanishing = `
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET); s.connect((sys.argv[1], 2100))
began = time.time()
while time.time() - began < 1: s.recv(4096)
s.setsockopt(6, 19, 1); print(s.getsockname()[1]); s.close()`

/** Tells of the resets for that port that a host gets. */
const resets = `
import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
print('ready', flush=True)
while True:
  packet, where = s.recvfrom(2000)
  if where[1] == 0x800: at = (packet[0] & 15) * 4
  elif where[1] == 0x86dd: at = 40
  else: continue
  if len(packet) < at + 14: continue
  source, destination = struct.unpack('!HH', packet[at:at + 4])
  if destination == 2100 and packet[at + 13] & 4: print('reset from', source, flush=True)`

describe.each([4, 6] as const)('over IPv%i', (family) => {
  test('who writes when an upstream on this host has forgotten the connection hears so at once', async () => {
    const loopback = family === 4 ? '127.0.0.1' : '::1'
    await using server = world.client.spawn('python3', ['-c', impatient, loopback])
    await server.until(({ stdout }) => stdout.includes('ready'), 'the server')
    const url = family === 4 ? 'socks5://127.0.0.1:1080' : 'socks5://[::1]:1080'
    await using proxy = await start(world, ['-i', 'wan0', '-p', `socks=${url}`])
    const { stdout, stderr } = await world.client.run('python3', ['-c', late, addresses[family].origin])
    expect(stderr).toBe('')
    expect(Number(stdout)).toBeLessThan(2)
    await proxy.until(() => events(proxy, 'session-end').length === 1, 'the end')
    expect(events(proxy, 'session-end')[0]).toMatchObject({ carried: 'splice', end: { how: 'reset' } })
  })

  test('what is said for a program that vanished goes to the upstream, and not past it', async () => {
    const address = family === 4 ? '198.51.100.1' : '2001:db8:1::1'
    await using _server = await microsocks(world.internet, address, 1080)
    await using origin = world.internet.spawn('python3', ['-c', endless])
    await origin.until(({ stdout }) => stdout.includes('ready'), 'the origin')
    await using sniffer = world.internet.spawn('python3', ['-c', resets])
    await sniffer.until(({ stdout }) => stdout.includes('ready'), 'the sniffer')
    const url = family === 4 ? `socks5://${address}:1080` : `socks5://[${address}]:1080`
    await using proxy = await start(world, ['-i', 'wan0', '-p', `socks=${url}`])
    const { stdout, stderr } = await world.client.run('python3', ['-c', vanishing, addresses[family].origin])
    expect(stderr).toBe('')
    await proxy.until(() => events(proxy, 'session-end').length === 1, 'the end')
    const [end] = events(proxy, 'session-end')
    expect(end).toMatchObject({ carried: 'splice', end: { how: 'reset', by: 'client' } })
    await origin.until(
      ({ stdout: said }) => said.includes('reset by peer') || said.includes('pipe'),
      'its end',
    )
    expect(sniffer.stdout).not.toContain(`reset from ${stdout.trim()}\n`)
  })
})
