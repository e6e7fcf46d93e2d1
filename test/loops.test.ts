import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { shortConnections } from './rig/crowd.ts'
import type { Host, Program } from './rig/host.ts'
import { mapEntries } from './rig/process.ts'
import { danted, microsocks, type Server } from './rig/servers.ts'
import { stateOf } from './rig/state.ts'
import { addresses, tproxyRun, World } from './rig/world.ts'

const pages = [`http://${addresses[4].url}/`, `https://${addresses[6].url}/`]
const curls = (url: string): string[] => ['-sSk', '-m', '5', url]

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

const started = (program: Program) => program.events.filter(({ event }) => event === 'session-start')

/** tproxy-run on wan0, ready. */
async function onInterface(plugin: string): Promise<Program> {
  const program = world.run(['--json', '-i', 'wan0', '-p', plugin], { input: '' })
  await program.until((p) => p.events.some(({ event }) => event === 'ready'), 'a ready line')
  return program
}

async function expectPages(): Promise<void> {
  for (const url of pages) {
    const { stdout, stderr } = await world.client.run('curl', curls(url))
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^GET \/ from /)
  }
}

/** That nothing but so many curls was intercepted, also a moment later. */
async function expectCurlsOnly(program: Program, count: number): Promise<void> {
  await sleep(200)
  expect(started(program).map(({ process, verdict }) => `${process?.name} ${verdict}`)).toEqual(
    Array.from({ length: count }, () => 'curl via'),
  )
}

describe.each<[string, string, (host: Host) => Promise<Server>]>([
  ['microsocks at 127.0.0.1', '127.0.0.1', (host) => microsocks(host, '127.0.0.1', 1080)],
  ['microsocks at ::1', '[::1]', (host) => microsocks(host, '::1', 1080)],
  ['microsocks at the address of wan0', '198.51.100.2', (host) => microsocks(host, '198.51.100.2', 1080)],
  ['microsocks at every address', '127.0.0.1', (host) => microsocks(host, '::', 1080)],
  ['dante, whose workers do not listen,', '127.0.0.1', (host) => danted(host, ['127.0.0.1'], 1080, 'wan0')],
])('%s on the intercepted host', (_, address, start) => {
  test('serves what is intercepted, and its own connections go direct', async () => {
    await using _server = await start(world.client)
    await using program = await onInterface(`socks=socks5://${address}:1080`)
    await expectPages()
    await expectCurlsOnly(program, pages.length)
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })

  test('is known again after it was restarted', async () => {
    await using program = await (async () => {
      await using _first = await start(world.client)
      const running = await onInterface(`socks=socks5://${address}:1080`)
      await expectPages()
      return running
    })()
    // Whoever gets its pid next is not exempt.
    await sleep(1500)
    const exempt = () => mapEntries(world.client, program, 'exempt')
    expect(await exempt()).toBe(1)
    await using _second = await start(world.client)
    await expectPages()
    await expectCurlsOnly(program, 2 * pages.length)
    expect(await exempt()).toBeGreaterThan(1)
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })
})

test.each(['127.0.0.1', '::1'])(
  'a server at %s that is started again at once is no loop',
  async (address) => {
    await using first = await microsocks(world.client, address, 1080)
    await using program = await onInterface(
      `socks=socks5://${address.includes(':') ? `[${address}]` : address}:1080`,
    )
    await expectPages()
    await first.program.stop('SIGKILL')
    await using _second = await microsocks(world.client, address, 1080)
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, index) => world.client.run('curl', curls(pages[index % 2] ?? ''))),
    )
    for (const { stdout, stderr } of results) {
      expect(stderr).toBe('')
      expect(stdout).toMatch(/^GET \/ from /)
    }
    await expectCurlsOnly(program, pages.length + 20)
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  },
)

test.each(['127.0.0.1', '[::1]', '198.51.100.2'])(
  'an upstream at %s that the command itself starts is no loop either',
  async (address) => {
    const bare = address.replaceAll(/[[\]]/g, '')
    const script = [
      `microsocks -i ${bare} -p 1081 >/dev/null 2>&1 & sleep .5`,
      ...pages.map((url) => `curl -sSk -m 5 ${url}`),
    ]
    await using program = world.run(
      ['--json', '-p', `socks=socks5://${address}:1081`, '--', 'sh', '-c', script.join('; ')],
      { input: '' },
    )
    const { stdout, stderr } = await program.exited
    expect(stdout).toMatch(/^(GET \/ from .*\n){2}$/)
    const events = stderr
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line))
    const names = events.filter(({ event }) => event === 'session-start').map((event) => event.process.name)
    expect(names).toEqual(['curl', 'curl'])
  },
)

test('connections that begin while an upstream is being exempted are answered like all others', async () => {
  await using _server = await microsocks(world.client, '127.0.0.1', 1080)
  let isReady = false
  const crowds = (async () => {
    const options = { address: addresses[4].origin, port: 7, count: 300, parallel: 20 }
    while (!isReady) expect(await shortConnections(world.client, options)).toMatchObject({ succeeded: 300 })
  })()
  await using program = await onInterface('socks=socks5://127.0.0.1:1080')
  isReady = true
  await crowds
  expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
})

test('what a plugin and its child processes connect to is not intercepted on an interface', async () => {
  const before = world.reached.length
  await using proxy = await world.proxy({ interfaces: ['wan0'], plugin: 'busy' })
  const { stdout } = await world.client.run('curl', curls(pages[0] ?? ''))
  expect(stdout).toMatch(/^GET \/ from /)
  await sleep(200)
  expect(proxy.events.filter(({ event }) => event === 'session')).toHaveLength(1)
  // The plugin's three, and the one it decided about.
  expect(world.reached.slice(before)).toHaveLength(4)
})

test('an upstream whose process cannot be found is refused, with the remedy, and nothing is changed', async () => {
  await using _server = await microsocks(world.client, '127.0.0.1', 1080)
  expect(await world.run(['clean']).exited).toMatchObject({ code: 0 })
  await world.client.sh('chmod 755 /run; chown 65534 /run/tproxy')
  const before = await stateOf(world.client)
  // Without CAP_SYS_PTRACE nobody may look at the files of root's processes.
  const caps = '-all,+bpf,+net_admin,+perfmon'
  const some = [`--inh-caps=${caps}`, `--ambient-caps=${caps}`, `--bounding-set=${caps}`]
  const as = ['--reuid=65534', '--regid=65534', '--clear-groups', ...some]
  const { code, stderr } = await world.client.run('setpriv', [
    ...as,
    ...tproxyRun,
    ...['-i', 'wan0', '-p', 'socks=127.0.0.1:1080'],
  ])
  const after = await stateOf(world.client)
  await world.client.sh('chown 0 /run/tproxy')
  expect(stderr).toMatch(
    /^tproxy-run: exempt the upstream at 127\.0\.0\.1:1080: the process that listens there was not found \(.*\)\n$/,
  )
  expect(code).toBe(125)
  expect(after).toEqual(before)
})
