import type { Host } from './host.ts'

// Whatever else is on PATH may be readable by root only, and some tests send as other users.
const python = '/usr/bin/python3'

/** Sends one datagram by a connected socket: `answered`, `silence` after two seconds, or the name of the error. */
export async function datagram(
  host: Host,
  [address, port]: readonly [address: string, port: number],
  options: { bytes?: number; by?: readonly string[] } = {},
): Promise<string> {
  const script = `
import errno, socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(2)
try:
  s.connect((sys.argv[1], int(sys.argv[2])))
  s.send(b'x' * int(sys.argv[3]))
  s.recv(65536); print('answered')
except socket.timeout: print('silence')
except OSError as e: print(errno.errorcode[e.errno])`
  const [command, ...args] = [...(options.by ?? []), python]
  const size = String(options.bytes ?? 1)
  const { stdout, stderr } = await host.run(command, [...args, '-c', script, address, `${port}`, size])
  return stdout.trim() || stderr
}

/** Answers every datagram at a port, on both families, until it is disposed of. */
export async function datagramEcho(host: Host, port: number): Promise<AsyncDisposable> {
  const script = `
import socket, threading
def serve(family, address):
  s = socket.socket(family, socket.SOCK_DGRAM)
  if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
  s.bind((address, ${port}))
  while True:
    data, peer = s.recvfrom(65536)
    s.sendto(b'%d' % len(data), peer)
for f, a in ((socket.AF_INET, '203.0.113.10'), (socket.AF_INET6, '2001:db8:2::10')):
  threading.Thread(target=serve, args=(f, a), daemon=True).start()
print('ready', flush=True)
threading.Event().wait()`
  const program = host.spawn(python, ['-c', script])
  await program.until((p) => p.stdout.includes('ready'), 'the echo of datagrams')
  return program
}

/** Sends an ICMP echo request: `answered`, `silence` after a second, or the name of the error. */
export async function echoRequest(host: Host, address: string): Promise<string> {
  const script = `
import errno, socket, struct, sys
v6 = ':' in sys.argv[1]
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, 58 if v6 else 1); s.settimeout(1)
request = struct.pack('!BBHHH', 128 if v6 else 8, 0, 0 if v6 else 0xf7fd, 1, 1)
try:
  s.connect((sys.argv[1], 0))
  s.send(request)
  while True:
    message = s.recv(65536)
    # A raw socket sees errors as messages, too, and perhaps first.
    if message[0 if v6 else 20] == (129 if v6 else 0): print('answered'); break
except socket.timeout: print('silence')
except OSError as e: print(errno.errorcode[e.errno])`
  const { stdout, stderr } = await host.run(python, ['-c', script, address])
  return stdout.trim() || stderr
}

/** Sends frames as they are, whatever their headers say. Returns of each whether it was let out. */
export async function rawFrames(host: Host, device: string, frames: readonly Buffer[]): Promise<boolean[]> {
  const script = `
import errno, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]:
  try: s.send(bytes.fromhex(frame)); print('out')
  except OSError as e:
    if e.errno != errno.ENOBUFS: raise
    print('refused')`
  const words = frames.map((frame) => frame.toString('hex'))
  const { stdout, stderr } = await host.run(python, ['-c', script, device, ...words])
  if (stderr !== '') throw new Error(stderr)
  return stdout
    .trim()
    .split('\n')
    .map((line) => line === 'out')
}
