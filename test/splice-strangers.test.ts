// Segments of those who know the addresses and ports of a connection, or guess them, and not its numbers.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { endFrom } from './rig/sessions.ts'
import { start } from './rig/tproxy-run.ts'
import { addresses, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

/** Makes segments without options, and sends them by a raw socket. */
const forging = `
import socket, struct
def total(data):
  sum_ = sum(struct.unpack('!%dH' % (len(data) // 2), data))
  sum_ = (sum_ & 0xffff) + (sum_ >> 16)
  return ~(sum_ + (sum_ >> 16)) & 0xffff
def forge(source, sport, destination, dport, seq, ack, flags):
  ends = socket.inet_aton(source) + socket.inet_aton(destination)
  def tcp(check): return struct.pack('!HHIIBBHHH', sport, dport, seq & 0xffffffff, ack & 0xffffffff, 0x50, flags, 1000, check, 0)
  segment = tcp(total(ends + struct.pack('!BBH', 0, 6, 20) + tcp(0)))
  raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
  raw.sendto(struct.pack('!BBHHHBBH', 0x45, 0, 40, 1, 0, 64, 6, 0) + ends + segment, (destination, 0))`

test.each([
  ['an end, with an acknowledgement of old', { flags: 0x11, ahead: 1000, upload: 2, window: 200_000 }],
  // The server takes less than it is sent: what our sockets hold is never delivered.
  [
    'a reset beyond what is due, where more is believed',
    { flags: 0x04, ahead: 900_000, upload: 300_000, window: 20_000 },
  ],
])('%s, forged, ends nothing, and all is counted', async (_, { flags, ahead, upload, window }) => {
  const server = `${forging}
import time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ${window}); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('', 2102)); listener.listen()
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)); sniffer.setblocking(False)
print('ready', flush=True)
peer, (address, port) = listener.accept()
peer.recv(2); peer.send(b'x'); time.sleep(1)
seq = ack = None
try:
  while True:
    packet = sniffer.recv(3000)
    if packet[9] != 6: continue
    at = (packet[0] & 15) * 4
    sport, dport, number, acked = struct.unpack('!HHII', packet[at:at + 12])
    if (sport, dport) == (port, 2102): seq, ack = acked, number
except BlockingIOError: pass
forge('${addresses[4].origin}', 2102, address, port, seq + ${ahead}, ack - 400000000, ${flags})
time.sleep(.3)
peer.sendall(bytes(5000000)); peer.shutdown(1)
while peer.recv(100000): pass`
  const client = `
import socket
s = socket.create_connection(('${addresses[4].origin}', 2102))
s.setblocking(False); sent = s.send(bytes(${upload})); s.setblocking(True)
got = 0
while data := s.recv(1 << 20): got += len(data)
print(s.getsockname()[1], sent, got)`
  await using served = world.internet.spawn('python3', ['-c', server])
  await served.until(({ stdout }) => stdout.includes('ready'), 'the server')
  await using proxy = await world.proxy({ interfaces: ['wan0'] })
  const { stdout, stderr } = await world.client.run('python3', ['-c', client])
  expect({ stderr, errors: served.stderr }).toEqual({ stderr: '', errors: '' })
  const [port = 0, sent, received] = stdout.split(' ').map(Number)
  expect(received).toBe(5_000_001)
  expect(await endFrom(proxy, port)).toMatchObject({
    how: 'closed',
    carried: 'splice',
    bytes: { sent, received },
  })
})

test('what claims to be an upstream, whose path translates our addresses, has none of it carried', async () => {
  const socks = `
import socket, threading
def serve(peer):
  peer.recv(300); peer.send(b'\\x05\\x00')
  peer.recv(300); peer.send(b'\\x05\\x00\\x00\\x01' + bytes(6))
  while data := peer.recv(1000): peer.send(data)
listener = socket.socket(); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('198.51.100.1', 1080)); listener.listen(); print('ready', flush=True)
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()`
  const client = `
import socket, time
s = socket.create_connection(('${addresses[4].origin}', 2100)); s.settimeout(5)
for _ in range(20):
  s.send(b'x'); assert s.recv(100) == b'x'; time.sleep(.1)
print('all', flush=True)`
  await world.client.sh(`nft -f - <<'END'
    table inet translated {
      chain out { type nat hook postrouting priority 100; tcp dport 1080 masquerade random; }
    }
END`)
  try {
    await using served = world.internet.spawn('python3', ['-c', socks])
    await served.until(({ stdout }) => stdout.includes('ready'), 'the server')
    await using _proxy = await start(world, ['-i', 'wan0', '-p', 'socks=socks5://198.51.100.1:1080'])
    await using program = world.client.spawn('python3', ['-c', client])
    // Of our socket, before the firewall gives it another port.
    const port = async () =>
      /198\.51\.100\.2:(\d+)/.exec(await world.client.sh('ss -Htn state established dport = :1080'))?.[1]
    await expect.poll(port).toBeDefined()
    await sleep(500)
    const forge = `${forging}\nforge('198.51.100.1', 1080, '198.51.100.2', ${await port()}, 12345678, 87654321, 0x10)`
    expect(await world.internet.run('python3', ['-c', forge])).toMatchObject({ code: 0, stderr: '' })
    const { stdout, stderr } = await program.exited
    expect({ stdout, stderr }).toEqual({ stdout: 'all\n', stderr: '' })
  } finally {
    await world.client.sh('nft delete table inet translated')
  }
})
