import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Result } from './rig/host.ts'
import { danted, microsocks, squid, tinyproxy } from './rig/servers.ts'
import { run } from './rig/tproxy-run.ts'
import { addresses, World } from './rig/world.ts'

const login = { user: 'rig', password: 'S3cret-of-the-rig' }
const urls = [4, 6].flatMap((family) =>
  ['http', 'https'].map((scheme) => `${scheme}://${addresses[family as 4 | 6].url}`),
)
const v4 = addresses[4].gateway
const v6 = addresses[6].gateway
const hosts = { IPv4: v4, IPv6: `[${v6}]` }

const kinds: { name: string; plugin: (host: string) => string }[] = [
  { name: 'microsocks', plugin: (host) => `socks=socks5://${host}:1080` },
  {
    name: 'microsocks with a password',
    plugin: (host) => `socks=socks5://${login.user}:${login.password}@${host}:1081`,
  },
  { name: 'dante', plugin: (host) => `socks=socks5://${host}:1082` },
  {
    name: 'two SOCKS servers in a row',
    plugin: (host) =>
      `socks=socks5://${host}:1082,socks5://${login.user}:${login.password}@198.51.100.1:1081`,
  },
  { name: 'tinyproxy', plugin: (host) => `http=http://${host}:8888` },
  {
    name: 'tinyproxy with a password',
    plugin: (host) => `http=http://${login.user}:${login.password}@${host}:8889`,
  },
  { name: 'squid', plugin: (host) => `http=http://${host}:3128` },
]

/** Each port, 4002 to 4005, has a fault of its own. On 4001 nobody listens. */
const faulty = `
import socket, struct, threading
def serve(port, fault):
  s = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
  def one(c):
    try: fault(c)
    except OSError: pass
  def loop():
    while True:
      c, _ = s.accept()
      threading.Thread(target=one, args=(c,), daemon=True).start()
  threading.Thread(target=loop).start()
def resets(c):
  c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
  c.close()
def hangs(c):
  while c.recv(4096): pass
def lies(c):
  c.recv(4096)
  c.sendall(b'\\xffnonsense\\r\\n\\r\\n' * 20)
  while c.recv(4096): pass
def closes(c):
  first = c.recv(4096)
  c.sendall(b'\\x05' if first[0] == 5 else b'HTTP/1.1 2')
  c.close()
for port, fault in [(4002, resets), (4003, hangs), (4004, lies), (4005, closes)]: serve(port, fault)
print('ready', flush=True)
`

const curl = ['curl', '-sSk', '-m', '8', '-w', '%{time_total}']

/** Words before a command. curl writes its errors letter by letter: on our standard error a line of ours would break them. */
const onStdout = ['sh', '-c', 'exec "$@" 2>&1', 'sh']

let world: World
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  world = stack.use(await World.create())
  const { internet } = world
  const both = [v4, v6]
  const servers = await Promise.all([
    microsocks(internet, '::', 1080),
    microsocks(internet, '::', 1081, login),
    danted(internet, both, 1082, 'eth0'),
    tinyproxy(internet, both, 8888),
    tinyproxy(internet, both, 8889, login),
    squid(internet, both, 3128),
  ])
  for (const server of servers) stack.use(server)
  const bad = stack.use(internet.spawn('python3', ['-c', faulty]))
  await bad.until((program) => program.stdout.includes('ready'), 'the faulty servers to be ready')
})
afterAll(() => stack.disposeAsync())

/** The JSON lines that tproxy-run wrote of sessions that ended. */
function ended({ stderr }: Result): {
  id: number
  upstream: string
  verdict: string
  end: { how: string; by?: string; error?: string }
}[] {
  return stderr
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .filter(({ event }) => event === 'session-end')
}

const clients: readonly string[] = [4, 6].flatMap((family) => {
  const { client, second } = addresses[family as 4 | 6]
  return [client, second]
})

function expectNoLeak(from: number): void {
  expect(world.reached.slice(from).filter((connection) => clients.includes(connection.from))).toEqual([])
}

describe.each(kinds)('through $name', ({ plugin }) => {
  test.each(['IPv4', 'IPv6'] as const)(
    'at an %s address, curl gets pages of both families, and the origin sees the proxy only',
    async (family) => {
      const before = world.reached.length
      const curls = urls.map((url) => `curl -sSk -m 10 ${url}/page`).join('; ')
      const result = await run(world, ['--json', '-p', plugin(hosts[family]), '--', 'sh', '-c', curls])
      expect(result.stdout).toMatch(/^(GET \/page from [0-9a-f:.]+\n){4}$/)
      for (const client of clients) expect(result.stdout).not.toContain(`${client}\n`)
      // curl does not read the last TLS records before it closes, which makes its kernel reset the connection.
      const ends = ended(result)
        .sort((one, other) => one.id - other.id)
        .map(({ verdict, end }) => `${verdict} ${end.how} ${end.by ?? ''}`.trim())
      expect(ends).toHaveLength(4)
      for (const [index, end] of ends.entries())
        expect(
          urls[index]?.startsWith('https') ? ['via closed', 'via reset client'] : ['via closed'],
        ).toContain(end)
      // squid keeps plain connections to the origin and uses them again.
      await expect.poll(() => world.reached.length - before).toBeGreaterThanOrEqual(2)
      expectNoLeak(before)
      expect(result.stderr).not.toContain(login.password)
    },
  )

  test('20 MB go up and come down unchanged', async () => {
    const size = 20_000_000
    const file = `/run/upload`
    await world.client.sh(`head -c ${size} /dev/urandom >${file}`)
    const [sum = ''] = (await world.client.sh(`sha256sum ${file}`)).split(' ')
    const xs = createHash('sha256').update(Buffer.alloc(size, 'x')).digest('hex')
    const transfers = [urls[0], urls[3]].map(
      (url) =>
        `curl -sSk -m 20 -T ${file} ${url}/up; curl -sSk -m 20 ${url}/bytes/${size} | sha256sum | cut -d' ' -f1`,
    )
    const result = await run(world, ['-p', plugin(hosts.IPv4), '--', 'sh', '-c', transfers.join('; ')])
    expect(result.stderr).toBe('')
    expect(result.stdout).toBe(`${sum}\n${xs}\n`.repeat(2))
  })
})

test('SOCKS4 and 4a reach IPv4 destinations through dante', async () => {
  for (const scheme of ['socks4', 'socks4a']) {
    const before = world.reached.length
    const result = await run(world, [
      '-p',
      `socks=${scheme}://${v4}:1082`,
      '--',
      'curl',
      '-sS',
      `${urls[0]}/four`,
    ])
    expect(result).toMatchObject({ code: 0, stderr: '', stdout: expect.stringContaining('GET /four') })
    expectNoLeak(before)
  }
})

// A reset that comes before curl has looked is an error of its connect().
const wasReset = /^curl: \(\d+\) .*(reset by peer|after \d+ ms: Couldn't connect).*\n[\d.]+$/i

describe.each([
  ['SOCKS', `socks=socks5://${login.user}:Wr0ng-password@${v4}:1081`, /handshake/],
  ['HTTP', `http=http://${login.user}:Wr0ng-password@${v4}:8889`, /401|407|authenticat/i],
])('a wrong password for a %s proxy', (name, plugin, step) => {
  test.each([['--json'], ['-v'], ['-q']])('resets the client and is shown nowhere, with %s', async (flag) => {
    const before = world.reached.length
    // tinyproxy answers a plain request with a page that says 401, which reaches the client like any page.
    const asked = name === 'HTTP' ? [urls[1], urls[3]] : [urls[0], urls[3]]
    const results = await Promise.all(
      asked.map((url) => run(world, [flag, '-p', plugin, '--', ...onStdout, ...curl, `${url}/`])),
    )
    for (const { code, stdout, stderr } of results) {
      expect(stdout).toMatch(wasReset)
      // 7: the reset was there before curl had looked at its new connection.
      expect([7, 35, 56]).toContain(code)
      if (flag !== '-q') expect(stderr).toMatch(step)
      expect(stdout + stderr).not.toContain('Wr0ng')
      expect(stdout + stderr).not.toContain(Buffer.from(`${login.user}:Wr0ng-password`).toString('base64'))
    }
    expect(world.reached).toHaveLength(before)
  })
})

describe.each([
  ['refuses', 4001],
  ['resets what it accepted', 4002],
  ['never answers', 4003],
  ['answers nonsense', 4004],
  ['closes within the handshake', 4005],
])('an upstream that %s', (_, port) => {
  test.each(['socks=socks5', 'http=http'])(
    'behind %s: the client is reset in time, nothing goes direct',
    async (kind) => {
      const before = world.reached.length
      const results = await Promise.all(
        // A plain request to a proxy that keeps silent waits as long as its client does: the origin may be slow.
        (kind === 'http=http' && port === 4003 ? [urls[3]] : [urls[0], urls[3]]).map((url) =>
          run(world, [
            ...['--json', '--connect-timeout', '1s', '-p', `${kind}://${v4}:${port}`, '--'],
            ...onStdout,
            ...curl,
            `${url}/`,
          ]),
        ),
      )
      for (const result of results) {
        expect([7, 35, 56]).toContain(result.code)
        expect(result.stdout).toMatch(wasReset)
        expect(Number(/[\d.]+$/.exec(result.stdout)?.[0])).toBeLessThan(2.5)
        expect(ended(result), result.stderr).toHaveLength(1)
      }
      expect(world.reached).toHaveLength(before)
    },
  )
})
