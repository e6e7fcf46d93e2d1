import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial } from './rig/client.ts'
import { firewall } from './rig/firewall.ts'
import type { Program } from './rig/host.ts'
import { mapEntries, openFiles } from './rig/process.ts'
import { sessions } from './rig/sessions.ts'
import { World } from './rig/world.ts'

/** Of all listeners here. Linux lets one connection more wait to be accepted. */
const backlog = 32
const count = 80

/** Answers, on every address of the internet, with what it read, the address that was reached, and the port that asks. */
const server = `
import socket, threading
s = socket.create_server(('::', 4100), family=socket.AF_INET6, dualstack_ipv6=True, backlog=${backlog})
print('ready', flush=True)
def answer(c):
  with c:
    while text := c.recv(100):
      c.sendall(b'%s %s %d;' % (text, c.getsockname()[0].replace('::ffff:', '').encode(), c.getpeername()[1]))
while True: threading.Thread(target=answer, args=(s.accept()[0],), daemon=True).start()
`

/**
 * Connects to as many addresses and speaks on each connection as soon as it seems open. With `early`, what it says is in the SYN
 * (TCP_FASTOPEN_CONNECT, RFC 7413): that cannot be held, and is accepted before it is decided. Says after a second how all are, and
 * at a line of standard input what became of them.
 */
const clients = `
import errno, json, selectors, socket, sys, time
network, pace, early = sys.argv[1], float(sys.argv[2]), sys.argv[3] == 'early'
watch, all, errors = selectors.DefaultSelector(), [], []
class Connection:
  def __init__(self, to):
    self.to, self.open, self.done, self.answer = to, False, False, b''
    self.socket = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET)
    self.socket.setblocking(False)
    if early: self.socket.setsockopt(socket.IPPROTO_TCP, 30, 1)
    self.socket.connect_ex((to, 4100))
    watch.register(self.socket, selectors.EVENT_WRITE, self)
  def go_on(self):
    try:
      if not self.open:
        if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR): raise OSError(error, '')
        self.open = True
        self.socket.send(b'hello')
        watch.modify(self.socket, selectors.EVENT_READ, self)
        return
      got = self.socket.recv(200)
      if not got: raise OSError(errno.EPIPE, '')
      self.answer += got
      self.done = got.endswith(b';')
    except OSError as error:
      errors.append(errno.errorcode[error.errno])
      self.done = True
    if self.done: watch.unregister(self.socket)
def wait(seconds):
  deadline = time.monotonic() + seconds
  while any(not one.done for one in all) and (left := deadline - time.monotonic()) > 0:
    for key, _ in watch.select(left): key.data.go_on()
for i in range(${count}):
  all.append(Connection(network + str(20 + i)))
  if pace: wait(pace)
wait(.9 - ${count} * pace)
state = [one.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] for one in all]
answered = sum(bool(one.answer) for one in all)
print(json.dumps(dict(established=state.count(1), synSent=state.count(2), answered=answered, errors=errors)), flush=True)
sys.stdin.readline()
wait(30)
ours = [one.answer.decode() == 'hello %s %d;' % (one.to, one.socket.getsockname()[1]) for one in all]
right = [one.answer.startswith(b'hello %s ' % one.to.encode()) for one in all]
print(json.dumps(dict(answered=sum(right), fromTheirPort=sum(ours), errors=errors)), flush=True)
`

let world: World
let origin: Program
beforeAll(async () => {
  world = await World.create()
  await world.internet.sh(`
    ip route add local 203.0.113.0/24 dev lo
    ip -6 route add local 2001:db8:2::/64 dev lo`)
  origin = world.internet.spawn('python3', ['-c', server])
  await origin.until(({ stdout }) => stdout.includes('ready'), 'the server')
  await world.client.sh(`echo ${backlog} >/proc/sys/net/core/somaxconn`)
  // Also to whom it has no cookie of.
  await world.client.sh('echo 5 >/proc/sys/net/ipv4/tcp_fastopen')
})
afterAll(() => world?.close())

/** What clients see while the process that accepts them is stopped, and then when it runs again. */
async function probe(stopped: Program, network: string, pace: number, how: 'early' | 'plain' = 'early') {
  stopped.kill('SIGSTOP')
  try {
    await using program = world.client.spawn('python3', ['-c', clients, network, `${pace}`, how])
    await program.until(({ events }) => events.length === 1, 'how the connections are')
    stopped.kill('SIGCONT')
    program.child.stdin?.end('\n')
    expect(await program.exited).toMatchObject({ code: 0, stderr: '' })
    const [full, later] = program.events
    return { full, later }
  } finally {
    stopped.kill('SIGCONT')
  }
}

test.each([
  ['4', '203.0.113.'],
  ['6', '2001:db8:2::'],
])(
  'over IPv%s, clients of a proxy that stands still wait in connect, and are served later',
  async (_, network) => {
    await using proxy = await world.proxy({ interfaces: ['wan0'] })
    const fds = openFiles(proxy.pid)
    expect(await probe(proxy, network, 0, 'plain')).toEqual({
      full: { established: 0, synSent: count, answered: 0, errors: [] },
      later: { answered: count, fromTheirPort: 0, errors: [] },
    })
    await expect.poll(() => proxy.events.filter(({ event }) => event === 'end').length).toBe(count)
    await expect.poll(() => openFiles(proxy.pid)).toBe(fds)
    expect(await mapEntries(world.client, proxy, 'flows')).toBe(0)
    await proxy.stop()
  },
)

// The kernel answers with cookies when more have not finished the handshake than may wait, or (2) always.
describe.each([
  ['one after the other', 1, 0.005],
  ['at the same instant', 1, 0],
  ['at the same instant, answered with SYN cookies', 2, 0],
])('with a full accept queue, clients that come %s', (_, cookies, pace) => {
  test.each([
    ['4', '203.0.113.'],
    ['6', '2001:db8:2::'],
  ])('see over IPv%s what a direct connection shows, and are served later', async (_family, network) => {
    for (const host of [world.client, world.internet])
      await host.sh(`echo ${cookies} >/proc/sys/net/ipv4/tcp_syncookies`)
    const direct = await probe(origin, network, pace)
    // Those that fit believe themselves connected; the SYNs of the others are dropped and sent again after a second.
    const full = { established: backlog + 1, synSent: count - backlog - 1, answered: 0, errors: [] }
    expect(direct).toEqual({ full, later: { answered: count, fromTheirPort: count, errors: [] } })

    await using proxy = await world.proxy({ interfaces: ['wan0'], plugin: 'direct' })
    const fds = openFiles(proxy.pid)
    const intercepted = await probe(proxy, network, pace)
    // From their own port nobody comes but who leaks past the proxy.
    expect(intercepted).toEqual({ full, later: { answered: count, fromTheirPort: 0, errors: [] } })
    await expect.poll(() => proxy.events.filter(({ event }) => event === 'end').length).toBe(count)
    expect(sessions(proxy)).toHaveLength(count)
    await expect.poll(() => openFiles(proxy.pid)).toBe(fds)
    expect(await mapEntries(world.client, proxy, 'flows')).toBe(0)
    await proxy.stop()
  })
})

/** Connects and takes it back at once, so many times. */
const fleeting = `
import socket, struct, sys
for _ in range(20):
  s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
  s.setsockopt(socket.IPPROTO_TCP, 30, 1)
  s.connect((sys.argv[1], 4100))
  s.send(b'hello')
  s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
  s.close()
`

test.each([
  ['4', '203.0.113.10'],
  ['6', '2001:db8:2::10'],
])('over IPv%s, those that are reset before they are accepted leave nothing', async (_family, address) => {
  await using proxy = await world.proxy({ interfaces: ['wan0'], plugin: 'direct' })
  const fds = openFiles(proxy.pid)
  proxy.kill('SIGSTOP')
  expect(await world.client.run('python3', ['-c', fleeting, address])).toMatchObject({ code: 0, stderr: '' })
  proxy.kill('SIGCONT')
  await expect.poll(() => mapEntries(world.client, proxy, 'flows')).toBe(0)
  await expect.poll(() => openFiles(proxy.pid)).toBe(fds)
  const ends = () => proxy.events.filter(({ event }) => event === 'end')
  await expect.poll(() => ends().length).toBe(sessions(proxy).length)
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
})

test('one whose program vanishes while it opens is forgotten', async () => {
  await using proxy = await world.proxy({ interfaces: ['wan0'] })
  await using _lost = await firewall(world.client, 'input', 'tcp sport 4100 drop')
  expect(await dial(world.client, ['203.0.113.10', 4100], { timeout: 500 })).toMatchObject({ end: 'timeout' })
  expect(await mapEntries(world.client, proxy, 'flows')).toBe(1)
  await expect
    .poll(() => mapEntries(world.client, proxy, 'flows'), { timeout: 35_000, interval: 1000 })
    .toBe(0)
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
})
