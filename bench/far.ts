// Uploads and downloads of one connection by a long way: how long they take, beside no proxy. Prints a table.
//
//   far.ts [MS]     each packet takes so many milliseconds, 20 unless told
import { joinByTunnel } from '../test/rig/tunnel.ts'
import { World } from '../test/rig/world.ts'
import { estimate } from './compare/statistics.ts'

const origin = '203.0.113.40'
const ms = Number(process.argv[2] ?? 20)
const rounds = 5
const megabytes = 20

const client = `
import socket, sys, time
way, control, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
start = time.monotonic()
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
s.connect(('${origin}', 9 if way == 'up' else 19))
if way == 'up':
  s.sendall(bytes(size))
  s.shutdown(socket.SHUT_WR)
  assert s.makefile().read().split()[1] == str(size)
else:
  s.sendall(b'%d' % size)
  while size > 0: size -= len(s.recv(1 << 20))
print(time.monotonic() - start)
`

await using stack = new AsyncDisposableStack()
const world = stack.use(await World.create({ congestion: 'machine' }))
stack.use(
  await joinByTunnel(
    { host: world.client, name: 'tun0', addresses: ['192.0.2.5/30'] },
    { host: world.internet, name: 'tun1', addresses: ['192.0.2.6/30'] },
    'delay',
    `${ms}`,
  ),
)
await world.client.sh(`ip route add ${origin} dev tun0`)
await world.internet.sh(`ip addr add ${origin}/32 dev lo`)

const sides = [
  { name: 'no proxy', options: undefined },
  { name: 'tproxy', options: {} },
  { name: 'tproxy relay', options: { carry: 'relay' } },
] as const

console.log(`${megabytes} MB by ${ms} ms each way: seconds, median of ${rounds} (least, largest)\n`)
console.log('| | up, cubic | down, cubic | up, BBR | down, BBR |\n| --- | ---: | ---: | ---: | ---: |')
for (const { name, options } of sides) {
  await using proxy = options && (await world.proxy({ interfaces: ['tun0'], ...options }))
  const cells: string[] = []
  for (const control of ['cubic', 'bbr']) {
    await world.internet.sh(`ip route replace 192.0.2.4/30 dev tun1 congctl ${control}`)
    for (const way of ['up', 'down']) {
      const seconds: number[] = []
      for (let round = 0; round < rounds; round++) {
        const words = ['-c', client, way, control, `${megabytes * 1_000_000}`]
        const { code, stdout, stderr } = await world.client.run('python3', words, { timeoutMs: 60_000 })
        if (code !== 0) throw new Error(stderr)
        seconds.push(Number(stdout))
      }
      const [least, largest] = [Math.min(...seconds), Math.max(...seconds)]
      cells.push(`${estimate(seconds).median.toFixed(2)} (${least.toFixed(2)}–${largest.toFixed(2)})`)
    }
  }
  const carried = new Set(proxy?.events.filter(({ event }) => event === 'end').map((end) => end.carried))
  console.log(`| ${[name, ...carried].join(', ')} | ${cells.join(' | ')} |`)
}
