import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { useDirectory } from './rig/directory.ts'
import type { Result } from './rig/host.ts'
import { stateOf } from './rig/state.ts'
import { tproxyRun, World } from './rig/world.ts'

const directory = useDirectory()
const file = `${directory}/f.yaml`

let world: World
beforeAll(async () => {
  world = await World.create()
  await world.client.sh(`chmod 755 ${directory}`)
})
afterAll(() => world?.close())

interface Told {
  readonly severity: string
  readonly line: number
  readonly column: number
  readonly message: string
  readonly remedy: string
}

/** As somebody without privileges. */
async function check(text: string, ...more: readonly string[]): Promise<Result> {
  writeFileSync(file, text, { mode: 0o644 })
  const as = ['--reuid=65534', '--regid=65534', '--clear-groups']
  return world.client.run('setpriv', [...as, ...tproxyRun, 'check', file, ...more])
}

test('everything that is wrong is told at once, with its place and its remedy', async () => {
  writeFileSync(
    `${directory}/office.ts`,
    `import { definePlugin, direct } from '@tproxy/core'
import { z } from 'zod'
const options = z.object({ port: z.int('a port').describe('the port to leave alone') })
export default definePlugin({ name: 'office', options, create: () => () => direct() })`,
  )
  const { code, stdout, stderr } = await check(`plugins:
  - socks=socks5://me:S3cret@host:99999
  - sokcs
  - { name: ./office.ts, options: { port: x } }
interfaces: [wan0, wan9]
markk: 3
mark: 0x10
user: nobodyy
rules:
  - drop tcp prot 25
  - drop tcp dport 25 uid alicee
  - { action: drop, protocol: tcp, dport: x }
  - action: direct
    not: { gid: [nogroup, nogroupp] }
    cgroup: ssh.service
  - redirect:wan7 udp
`)
  expect({ code, stderr }).toEqual({ code: 1, stderr: '' })
  expect(stdout).not.toContain('S3cret')
  expect(stdout.replaceAll(`${file}:`, '').split('\n')).toEqual([
    expect.stringMatching(/^2:5: error: plugin socks: .*write socks5:\/\/host:port/),
    expect.stringMatching(/^3:5: error: there is no plugin sokcs \(socks and http are built in/),
    expect.stringMatching(
      /^4:\d+: error: plugin .*option port of office: a port \(port is the port to leave/,
    ),
    '5:20: error: there is no interface wan9 (there are wan0, wan1)',
    '6:1: error: expected a known key, got "markk" (did you mean mark?)',
    '7:7: error: routing mark 0x10 is not usable (give a number whose lower 16 bits are 0, such as 0x74700000)',
    '8:7: error: there is no user nobodyy (see: getent passwd)',
    expect.stringMatching(/^10:14: error: expected what to match, .* got "prot" \(did you mean proto\?\)$/),
    '11:27: error: there is no user alicee (see: getent passwd)',
    '12:43: error: expected a port or range, such as 443 or 8000-8999, got "x"',
    '14:27: error: there is no group nogroupp (see: getent group)',
    '15:13: warning: there is no cgroup or unit ssh.service now (it matches nothing until there is one)',
    '16:14: error: redirect:wan7: there is no interface wan7 (see: ip link)',
    ' 12 errors, 1 warning',
    '',
  ])
})

test('what is valid and of no use is warned of, and nothing is changed', async () => {
  const before = await stateOf(world.client)
  const { code, stdout } = await check(
    `plugins: [socks=socks5://127.0.0.1:1080, http=http://192.0.2.1:3128]
interfaces: [wan0]
rules:
  - drop tcp dport 25
  - drop tcp dport 25 uid root
  - { action: drop, ip: 4, to: '2001:db8::1' }
  - direct from 2001:db8::/32
  - direct from 2001:db8:1::/48
  - proxy via socks interface wan0,wan1
  - direct udp interface wan7
default-action: direct
`,
    '--json',
  )
  const { event, valid, findings } = JSON.parse(stdout)
  expect({ code, event, valid }).toEqual({ code: 0, event: 'check', valid: true })
  expect(
    (findings as Told[]).map(({ severity, line, column, message, remedy }) => [
      `${severity} ${line}:${column}`,
      message,
      remedy,
    ]),
  ).toEqual([
    [
      'warning 1:11',
      'upstream of socks: nobody listens at 127.0.0.1:1080 now',
      expect.stringContaining('until somebody does'),
    ],
    [
      'warning 1:42',
      'plugin http is never asked: no rule says proxy, and default-action is direct',
      'write a rule, such as proxy tcp via http',
    ],
    [
      'warning 5:5',
      'rule 2 never matches: rule 1 covers it (drop tcp dport 25)',
      'put it before rule 1, or remove it',
    ],
    ['warning 6:5', 'rule 3 never matches: no packet is all that it asks for', expect.any(String)],
    ['warning 8:5', 'rule 5 never matches: rule 4 covers it (direct from 2001:db8::/32)', expect.any(String)],
    ['warning 9:36', 'packets that leave by wan1 are never looked at', 'add wan1 to interfaces'],
    ['warning 10:26', 'there is no interface wan7 now', 'it matches nothing until there is one'],
    ['warning 10:26', 'packets that leave by wan7 are never looked at', 'add wan7 to interfaces'],
  ])
  expect(await stateOf(world.client)).toEqual(before)
})

test('a rule whose plugin is not there is refused, as it is at a start', async () => {
  const text = 'plugins: [socks]\ninterfaces: [wan0]\nrules:\n  - proxy tcp dport 443 via scoks\n'
  const { code, stdout } = await check(text)
  expect(code).toBe(1)
  expect(stdout).toContain(`${file}:4:29: error: there is no plugin scoks (there are socks)\n`)
  expect((await world.client.run(tproxyRun[0], [...tproxyRun.slice(1), '-c', file])).stderr).toContain(
    'there is no plugin scoks (there are socks)',
  )
})

test('what could not be kept, or served, is refused, as it is at a start', async () => {
  const told = async (text: string) => (await check(text)).stdout.replaceAll(file, '').split('\n')
  expect(await told('keep: true\ncarry: relay\nmetrics: 192.0.2.77:9464\n')).toEqual([
    expect.stringMatching(/^:1:7: error: keep with carry relay \(only what the kernel carries/),
    expect.stringMatching(
      /^:1:7: error: keep spliced connections: no bpf file system is mounted \(mount -t bpf/,
    ),
    expect.stringMatching(/^:3:10: error: serve metrics at 192\.0\.2\.77:9464: .*EADDRNOTAVAIL.* \(choose/),
    ': 3 errors, 0 warnings',
    '',
  ])
  expect((await told('metrics: unix:/etc/hostname\n'))[0]).toContain(
    '/etc/hostname: what is there is no socket',
  )
  expect((await told('metrics: unix:/run/none/metrics\n'))[0]).toContain('/run/none')
  expect(await told('metrics: "[::1]:9464"\n')).toEqual([' is valid', ''])
})

test('what is in order is told in one line', async () => {
  expect(await check('interfaces: [wan0]\nrules: [drop tcp dport 25]\n')).toMatchObject({
    code: 0,
    stdout: `${file} is valid\n`,
  })
  expect(await world.client.run(tproxyRun[0], [...tproxyRun.slice(1), 'check'])).toMatchObject({
    code: 1,
    stdout: expect.stringContaining('/etc/tproxy/tproxy.yaml: error: no such file'),
  })
})
