import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { dial, holdDial, inCgroup } from './rig/client.ts'
import { firewall } from './rig/firewall.ts'
import { fixture, kernelFixture } from './rig/fixture.ts'
import type { Program } from './rig/host.ts'
import { endFrom, sessionFrom } from './rig/sessions.ts'
import { loadedPrograms, stateOf } from './rig/state.ts'
import { addresses, dialled, World } from './rig/world.ts'

/** Attaches the program of an object file before all others at the egress of wan0 (BPF_LINK_CREATE with BPF_F_BEFORE). */
const attachFirst = `
import ctypes, platform, socket, struct, sys, time
bpf = ctypes.CDLL('libbpf.so.1')
for name in ('bpf_object__open_file', 'bpf_object__next_program'): getattr(bpf, name).restype = ctypes.c_void_p
object = ctypes.c_void_p(bpf.bpf_object__open_file(sys.argv[1].encode(), None))
assert not bpf.bpf_object__load(object)
program = bpf.bpf_program__fd(ctypes.c_void_p(bpf.bpf_object__next_program(object, None)))
egress, before, create = 47, 8, 28
attr = struct.pack('IIII', program, socket.if_nametoindex('wan0'), egress, before).ljust(64, b'\\0')
number = {'x86_64': 321, 'aarch64': 280}[platform.machine()]
assert ctypes.CDLL(None).syscall(number, create, attr, len(attr)) >= 0
print('ready', flush=True)
time.sleep(60)
`

/** Of a process that may end meanwhile. */
function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** Of what a process has attached: links and their programs, by id. */
function linksOf({ pid }: Program): { link: string; program: string }[] {
  return readdirSync(`/proc/${pid}/fdinfo`).flatMap((fd) => {
    const info = readIfThere(`/proc/${pid}/fdinfo/${fd}`)
    const [link, program] = [/^link_id:\s+(\d+)/m.exec(info)?.[1], /^prog_id:\s+(\d+)/m.exec(info)?.[1]]
    return link === undefined || program === undefined ? [] : { link, program }
  })
}

/** The id of the link by which a process has attached the program of this name. */
async function linkOf(name: string, process: Program): Promise<string> {
  const programs = JSON.parse(await world.client.sh('bpftool -j prog show')) as { id: number; name: string }[]
  const named = programs.filter((program) => program.name === name).map(({ id }) => String(id))
  const found = linksOf(process).find(({ program }) => named.includes(program))
  if (found === undefined) throw new Error(`process ${process.pid} has not attached ${name}`)
  return found.link
}

let world: World
beforeAll(async () => {
  await fixture('client')
  world = await World.create()
})
afterAll(() => world.close())

const curl = (...args: string[]) =>
  world.client.run('curl', ['-sS', '-m', '5', ...args, 'http://203.0.113.10/'])

/** Programs are freed some milliseconds after the last link is closed. */
async function nothingLoaded(before: string[]): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    if ((await loadedPrograms(world.client)).join() === before.join()) return
    await sleep(20)
  }
  expect(await loadedPrograms(world.client)).toEqual(before)
}

test.each([4, 6] as const)(
  'over IPv%i, a connection that began to open before is taken whole',
  async (family) => {
    const lost = await firewall(world.internet, 'prerouting', 'tcp dport 7 drop')
    const dialled = dial(world.client, [addresses[family].origin, 7], { echo: 100_000, timeout: 15_000 })
    await sleep(300)
    await using proxy = await world.proxy({ interfaces: 'auto' })
    await lost[Symbol.asyncDispose]()
    const echoed = await dialled
    expect(echoed).toMatchObject({ end: 'closed', received: 100_000, equal: true })
    expect(await endFrom(proxy, echoed.port)).toMatchObject({ how: 'closed', bytes: { sent: 100_000 } })
    expect(await sessionFrom(proxy, echoed.port)).not.toHaveProperty('process')
    expect(await proxy.stop()).toMatchObject({ code: 0 })
  },
)

test('SIGTERM undoes everything: state of the host, programs, and new connections go direct', async () => {
  const before = await stateOf(world.client)
  const programs = await loadedPrograms(world.client)
  await using proxy = await world.proxy({ interfaces: 'auto' })
  expect(await stateOf(world.client)).not.toEqual(before)
  expect((await curl()).code).toBe(0)
  const { code, stdout } = await proxy.stop()
  expect(stdout).toContain('"closed"')
  expect(code).toBe(0)
  expect(await stateOf(world.client)).toEqual(before)
  await nothingLoaded(programs)
  expect((await curl()).code).toBe(0)
})

test('an abort ends the process, and what is left changes no traffic and is removed by the next', async () => {
  const before = await stateOf(world.client)
  {
    await using proxy = await world.proxy({ interfaces: ['wan0'] })
    await proxy.stop('SIGABRT')
  }
  await using local = world.client.spawn('bash', [
    '-c',
    'curl -sS -m 5 --local-port 30001 http://203.0.113.10/',
  ])
  expect((await local.exited).code).toBe(0)
  // Direct: the origin sees the program's own port.
  await expect.poll(() => world.reached.at(-1)).toMatchObject({ from: '198.51.100.2', fromPort: 30001 })
  await using next = await world.proxy({ interfaces: ['wan0'] })
  await next.stop()
  expect(await stateOf(world.client)).toEqual(before)
})

test('SIGKILL at 100 random moments leaves nothing that outlives the next start and stop', async () => {
  const before = await stateOf(world.client)
  const programs = await loadedPrograms(world.client)
  const main = new URL('rig/proxy.ts', import.meta.url).pathname
  let mid = 0
  const moment = async (index: number) => {
    const options = JSON.stringify(
      index % 2 ? { interfaces: ['wan0', 'wan1'] } : { interfaces: 'all', rules: ['drop dport 25'] },
    )
    await using program = world.client.spawn(process.execPath, ['--conditions=@tproxy/source', main, options])
    // Starting takes about half a second here; the later half is where the host is changed.
    await sleep(150 + Math.random() * 500)
    if ((await world.client.sh('ls /run')).includes('tproxy')) mid++
    program.kill('SIGKILL')
    await program.exited
  }
  for (let index = 0; index < 100; index++) await moment(index)
  // The moments were worth it: many fell into the set-up or later.
  expect(mid).toBeGreaterThan(20)
  expect((await curl()).code).toBe(0)
  await using next = await world.proxy({ interfaces: ['wan0'] })
  expect((await curl()).code).toBe(0)
  await next.stop()
  expect(await stateOf(world.client)).toEqual(before)
  await nothingLoaded(programs)
}, 180_000)

test('SIGKILL of tproxy-run at 25 random moments ends its command, leaks nothing of it, and clean restores the host', async () => {
  const before = await stateOf(world.client)
  // Whatever the command sends must come from the proxy, whose source port is never in this range.
  const command = 'while :; do curl -s -m 2 -o /dev/null --local-port 31000-31999 http://203.0.113.10/; done'
  const runsCommand = ({ pid }: Program) => {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').match(/\d+/g) ?? []
    return children.some((child) => readIfThere(`/proc/${child}/cmdline`).includes(command))
  }
  const start = () => world.run(['-q', '-p', dialled, '--', 'setsid', 'sh', '-c', command])
  // How long a start takes depends on the machine, and on what else runs on it.
  const began = performance.now()
  await using first = start()
  await first.until(runsCommand, 'the command')
  const takes = performance.now() - began
  first.kill('SIGKILL')
  await first.exited
  let started = 0
  await using _counted = await firewall(world.internet, 'prerouting', 'tcp sport 31000-31999 counter')
  for (let index = 0; index < 25; index++) {
    await using run = start()
    await sleep(takes * (0.3 + 1.5 * Math.random()))
    if (runsCommand(run)) started++
    run.kill('SIGKILL')
    await run.exited
    await sleep(50)
    const left = await world.client.sh('ps -eo args | grep -c "[l]ocal-port 31000" || true')
    expect(left.trim()).toBe('0')
  }
  expect(started).toBeGreaterThan(5)
  expect(await world.internet.sh('/usr/sbin/nft list ruleset')).toContain('counter packets 0 ')
  const { code } = await world.run(['clean']).exited
  expect(code).toBe(0)
  expect(await stateOf(world.client)).toEqual(before)
}, 120_000)

test('a second instance on the same interface is refused and names the first; scopes of cgroups go side by side', async () => {
  await using first = await world.proxy({ interfaces: ['wan0'] })
  const second = world.client.spawn(process.execPath, [
    '--conditions=@tproxy/source',
    new URL('rig/proxy.ts', import.meta.url).pathname,
    '{"interfaces":["wan0"]}',
  ])
  const { code } = await second.exited
  expect(code).toBe(1)
  expect(second.events).toEqual([
    {
      event: 'failed',
      code: 'E_BUSY',
      message: `process ${first.pid} already intercepts wan0 (stop it first: kill ${first.pid})`,
    },
  ])
  await using other = await world.proxy({ interfaces: ['wan1'], plugin: 'direct' })
  // Each takes what leaves by its own interface.
  expect((await curl('--interface', 'wan1')).code).toBe(0)
  await other.until((p) => p.events.some(({ event }) => event === 'session'), 'a session')
  expect(first.events.filter(({ event }) => event === 'session')).toEqual([])
  await first.stop()
  // The rule and route that both share stay for the other.
  expect((await curl('--interface', 'wan1')).code).toBe(0)
  expect(other.events.filter(({ event }) => event === 'session')).toHaveLength(2)
  await other.stop()
})

test('a mark, table or priority that belongs to somebody else is refused, and nothing is changed', async () => {
  for (const [rule, clash] of [
    ['priority 100 fwmark 0x1 lookup main', 'routing rule priority 100 (IPv4) is in use'],
    ['priority 999 lookup 29808', 'routing table 29808 (IPv4) is in use'],
    ['priority 999 fwmark 0x74700000/0xffff0000 lookup main', 'matches our mark 0x74700000'],
  ] as const) {
    await world.client.sh(`ip rule add ${rule}`)
    const before = await stateOf(world.client)
    await using program = world.client.spawn(process.execPath, [
      '--conditions=@tproxy/source',
      new URL('rig/proxy.ts', import.meta.url).pathname,
      '{"interfaces":["wan0"]}',
    ])
    await program.exited
    expect(program.events).toMatchObject([
      { event: 'failed', code: 'E_CLASH', message: expect.stringContaining(clash) },
    ])
    expect(await stateOf(world.client)).toEqual(before)
    await world.client.sh(`ip rule del ${rule}`)
  }
})

test('programs that somebody detaches are attached again within seconds, and it is said', async () => {
  await using proxy = await world.proxy({ interfaces: ['wan0'] })
  const warnings = () => proxy.events.filter(({ event }) => event === 'warning').map(({ message }) => message)
  const links = () => linksOf(proxy).map(({ link }) => link)
  const before = links()
  expect(before.length).toBeGreaterThan(5)
  // One that traces cannot be detached.
  await world.client.sh(`for id in ${before.join(' ')}; do bpftool link detach id $id || true; done`)
  await expect.poll(warnings, { timeout: 5000 }).toHaveLength(1)
  for (const name of [
    'wan_egress',
    'lo_ingress',
    'lo_egress',
    'listener_lookup',
    'ingress',
    'egress',
    'loopback',
  ])
    expect(warnings()[0]).toContain(name)
  expect(links()).toHaveLength(before.length)
  await using local = world.client.spawn('bash', [
    '-c',
    'curl -sS -m 5 --local-port 30011 http://203.0.113.10/',
  ])
  expect((await local.exited).code).toBe(0)
  await expect
    .poll(() => proxy.events.filter(({ event }) => event === 'end'))
    .toMatchObject([{ carried: 'splice', how: 'closed' }])
  expect(world.reached.at(-1)?.fromPort).not.toBe(30011)
  expect(await proxy.stop()).toMatchObject({ code: 0 })
})

test('where only the steering of a scope is detached, it comes back behind the splice: connections go on, and new ones are spliced', async () => {
  const by = inCgroup(world.client, 'scope')
  await using proxy = await world.proxy({ interfaces: ['wan0'], cgroup: `${world.client.cgroup}/scope` })
  const warnings = () => proxy.events.filter(({ event }) => event === 'warning').map(({ message }) => message)
  const before = await holdDial(world.client, [addresses[4].origin, 7], { echo: 1_000_000, by })
  await proxy.until(({ events }) => events.some(({ event }) => event === 'session'), 'a session')
  await sleep(200)
  await world.client.sh(`bpftool link detach id ${await linkOf('wan_egress', proxy)}`)
  await expect.poll(warnings, { timeout: 5000 }).toHaveLength(1)
  expect(warnings()[0]).toMatch(/^somebody detached wan_egress \d+, /)
  expect(await before.release()).toMatchObject({ end: 'closed', received: 1_000_000, equal: true })
  const after = await dial(world.client, [addresses[4].origin, 7], { echo: 1_000_000, by })
  expect(after).toMatchObject({ end: 'closed', received: 1_000_000, equal: true })
  await expect
    .poll(() => proxy.events.filter(({ event }) => event === 'end'))
    .toMatchObject(Array(2).fill({ carried: 'splice', how: 'closed' }))
  expect(await proxy.stop()).toMatchObject({ code: 0 })
})

test('another program that sees packets first is named', async () => {
  await using proxy = await world.proxy({ interfaces: ['wan0'] })
  await using scoped = world.run(['-q', '--', 'sleep', '60'])
  const warnings = () => proxy.events.filter(({ event }) => event === 'warning').map(({ message }) => message)
  await using other = world.client.spawn('python3', ['-c', attachFirst, await kernelFixture('nothing')])
  await other.until(({ stdout }) => stdout.includes('ready'), 'the program')
  await expect.poll(warnings, { timeout: 5000 }).toHaveLength(1)
  expect(warnings()[0]).toBe('on wan0, nothing runs before us: what it redirects or drops is not intercepted')
  await sleep(1500)
  expect(warnings()).toHaveLength(1)
  await scoped.stop()
  expect(await proxy.stop()).toMatchObject({ code: 0 })
})

test('a routing rule or route that somebody removes is put back, and no connection goes direct meanwhile', async () => {
  const before = await stateOf(world.client)
  await using proxy = await world.proxy({ interfaces: ['wan0'] })
  const warnings = () => proxy.events.filter(({ event }) => event === 'warning')
  const standing = await stateOf(world.client)
  for (const [index, removal] of [
    'ip rule del priority 100',
    'ip -6 rule del priority 100',
    'ip route flush table 29808',
    'ip -6 route flush table 29808; ip rule flush; ip rule add priority 32766 table main',
  ].entries()) {
    await world.client.sh(removal)
    const reached = world.reached.length
    const url = addresses[index % 2 === 0 ? 4 : 6].url
    const args = [
      '-sS',
      '-m',
      '5',
      '--local-port',
      `${21_000 + 10 * index}-${21_009 + 10 * index}`,
      `http://${url}/`,
    ]
    expect((await world.client.run('curl', args)).code).toBe(0)
    const ports = () => world.reached.slice(reached).map(({ fromPort }) => fromPort)
    await expect.poll(ports).toHaveLength(1)
    expect(ports().filter((port) => port >= 21_000 && port < 21_100)).toEqual([])
    await expect.poll(warnings).toHaveLength(index + 1)
    expect(warnings().at(-1).message).toMatch(/^our routing rule or route was missing, and is back/)
  }
  await world.client.sh('ip rule add priority 32767 table default')
  await sleep(300)
  expect(await stateOf(world.client)).toEqual(standing)
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
  expect(await stateOf(world.client)).toEqual(before)
})
