import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { dial } from './rig/client.ts'
import { cgroupMount, type Program } from './rig/host.ts'
import { endFrom } from './rig/sessions.ts'
import { addresses, type ProxyProgramOptions, tellRules, tproxyRun, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

const MB = 1_000_000
const { origin } = addresses[4]
const object = new URL('../packages/bpf/dist/fastpath.bpf.o', import.meta.url).pathname

const proxied = (options: ProxyProgramOptions = {}) =>
  world.proxy({ interfaces: ['wan0'], cgroup: world.client.cgroup, fastpath: 'both', ...options })

const counts = async (proxy: Program) => (await tellRules(proxy, {})).fastpath

/** Names of the programs attached to a cgroup itself. */
const attached = async (cgroup: string): Promise<string[]> => {
  const text = await world.client.sh(`PATH=$PATH:/usr/sbin bpftool -j cgroup show ${cgroup}`)
  return text.trim() === '' ? [] : JSON.parse(text).map(({ name }: { name: string }) => name)
}

test('a connection that the kernel carries never enters it', async () => {
  await using proxy = await proxied()
  const echoed = await dial(world.client, [origin, 7], { echo: 3 * MB, random: true })
  expect(echoed).toMatchObject({ end: 'closed', received: 3 * MB, equal: true })
  expect(await endFrom(proxy, echoed.port)).toMatchObject({ carried: 'splice' })
  const { recorded, joined, redirected } = (await counts(proxy)) ?? {}
  expect({ recorded, joined, redirected }).toEqual({ recorded: 1, joined: 0, redirected: 0 })
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
})

test('neither do connections that are not intercepted, nor Multipath TCP', async () => {
  await using proxy = await proxied({ carry: 'relay', rules: ['direct dport 22'] })
  expect(await dial(world.client, [origin, 22], { read: 13 })).toMatchObject({ received: 13 })
  const multipath = await dial(world.client, [origin, 7], { echo: MB, mptcp: true })
  expect(multipath).toMatchObject({ end: 'closed', received: MB, equal: true })
  await endFrom(proxy, multipath.port)
  expect(await counts(proxy)).toMatchObject({ recorded: 0, joined: 0, mptcp: 1 })
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
})

test('a kernel that does not take the programs costs nothing but them', async () => {
  await world.client.sh(`mount --bind /dev/null ${object}`)
  try {
    await using proxy = await proxied({ carry: 'relay' })
    const { fastpath } = proxy.events.find(({ event }) => event === 'ready')
    expect(fastpath).toMatchObject({ mode: 'off', problem: expect.stringContaining('fastpath') })
    const echoed = await dial(world.client, [origin, 7], { echo: MB, random: true })
    expect(echoed).toMatchObject({ end: 'closed', received: MB, equal: true })
    await proxy.stop()
    await using doctor = world.run(['doctor', '--json', '--fastpath', 'both'], { input: '' })
    await doctor.exited
    expect(doctor.events.find(({ name }) => name === 'fastpath')).toMatchObject({
      status: 'warn',
      detail: expect.stringContaining('fastpath'),
    })
    const words = ['--json', '--fastpath', 'both', '--', ...tproxyRun, 'status']
    await using told = world.run(words, { input: '' })
    const { stdout, stderr } = await told.exited
    expect(stderr).toContain('fastpath is off: ')
    expect(stdout).toMatch(/\nfastpath +off: .*fastpath/)
  } finally {
    await world.client.sh(`umount ${object}`)
  }
})

test('status tells its mode, what it did, and why it is off', async () => {
  const asked = async (...options: string[]) => {
    await using program = world.run(['--json', '-i', 'wan0', '--carry', 'relay', ...options])
    await program.until((it) => it.events.some(({ event }) => event === 'ready'), 'a ready line')
    expect(await dial(world.client, [origin, 7], { echo: MB })).toMatchObject({ received: MB, equal: true })
    const status = async (...how: string[]) => {
      await using told = world.run(['status', ...how], { input: '' })
      return (await told.exited).stdout
    }
    const { fastpath } = JSON.parse(await status('--json'))
    const told = { fastpath, line: /^fastpath +(.*)$/m.exec(await status())?.[1] }
    await program.stop()
    return told
  }
  expect(await asked()).toEqual({ fastpath: { mode: 'off' }, line: 'off' })
  const { fastpath, line } = await asked('--fastpath', 'both')
  expect(fastpath).toEqual({ mode: 'both', redirected: expect.any(Number) })
  expect(fastpath.redirected).toBeGreaterThan(0)
  expect(line).toBe(`both, ${fastpath.redirected} messages`)
  await world.client.sh(`mount --bind /dev/null ${object}`)
  try {
    expect(await asked('--fastpath', 'both')).toEqual({
      fastpath: { mode: 'off', problem: expect.stringContaining('fastpath') },
      line: expect.stringMatching(/^off: .*fastpath/),
    })
  } finally {
    await world.client.sh(`umount ${object}`)
  }
})

test('what is sent to a target that is not there goes by TCP, and is no error', async () => {
  const script = new URL('./rig/missing-target.ts', import.meta.url).pathname
  const { stdout, stderr } = await world.client.run(process.execPath, ['--conditions=@tproxy/source', script])
  expect(stderr).toBe('')
  expect(JSON.parse(stdout)).toEqual({
    first: ['sent', 'redirected'],
    second: ['sent', 'passed'],
    redirected: 1,
    notJoined: 1,
  })
})

test('with a command, it is attached to the cgroup of that command only', async () => {
  const script = 'PATH=$PATH:/usr/sbin bpftool -j cgroup show $0$(sed -n s/^0:://p /proc/self/cgroup)'
  const words = ['--carry', 'relay', '--fastpath', 'both', '--json', '--', 'sh', '-c', script, cgroupMount]
  await using program = world.run(words, { input: '' })
  const { stdout, stderr, code } = await program.exited
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject([{ attach_type: 'cgroup_sock_ops', name: 'remember' }])
  expect(JSON.parse(stderr.split('\n')[0] ?? '')).toMatchObject({ fastpath: { mode: 'both' } })
})

test('on an interface, it is attached to all that the proxy can see, such as a container', async () => {
  // Enclosed by the rig: all that it can see is the host's cgroup.
  await using proxy = world.run(['--json', '-i', 'wan0', '--carry', 'relay', '--fastpath', 'both'], {
    input: '',
  })
  await proxy.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line')
  expect(await attached(world.client.cgroup)).toEqual(['remember'])
  expect(await attached(cgroupMount)).not.toContain('remember')
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
  await sleep(50)
  expect(await attached(world.client.cgroup)).toEqual([])
})
