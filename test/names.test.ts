import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { microsocks, squid, tinyproxy } from './rig/servers.ts'
import { addresses, World } from './rig/world.ts'

/** Nobody has it: whoever is asked to connect to it fails. */
const nowhere = '203.0.113.99'
const gateway = addresses[4].gateway
const directory = mkdtempSync(`${tmpdir()}/rig-names-`)

let world: World
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  world = stack.use(await World.create())
  stack.defer(() => rmSync(directory, { recursive: true }))
  const { internet } = world
  // Only the upstreams know this name.
  writeFileSync(`${directory}/hosts`, `${addresses[4].origin} shop.example\n`)
  await internet.sh(`mount --bind ${directory}/hosts /etc/hosts; ip route add unreachable ${nowhere}`)
  stack.use(await microsocks(internet, '::', 1080))
  stack.use(await tinyproxy(internet, [gateway], 8888))
  stack.use(await squid(internet, [gateway], 3128))
})
afterAll(() => stack.disposeAsync())

const curl = (scheme: string, host = 'shop.example', port = { http: 80, https: 443 }[scheme]) =>
  `curl -sSk -m 8 --connect-to ::${nowhere}:${port} ${scheme}://${host}/page`

async function run(...args: readonly string[]) {
  await using program = world.run(args, { input: '' })
  const { code, stdout, stderr } = await program.exited
  const lines = stderr.split('\n').filter((line) => line.startsWith('{'))
  const ended = lines.map((line) => JSON.parse(line)).filter(({ event }) => event === 'session-end')
  return { code, stdout, ended }
}

describe.each([
  ['microsocks', `socks=socks5://${gateway}:1080`],
  ['microsocks behind itself', `socks=socks5://${gateway}:1080,socks5://${gateway}:1080`],
  ['tinyproxy', `http=http://${gateway}:8888`],
  ['squid', `http=http://${gateway}:3128`],
])('%s', (_, plugin) => {
  test('resolves the name in a ClientHello or a Host header, when told to by --names', async () => {
    const both = `${curl('http')}; ${curl('https')}`
    const { stdout, ended } = await run('--json', '--names', '-p', plugin, '--', 'sh', '-c', both)
    expect(stdout).toMatch(/^(GET \/page from \S+\n){2}$/)
    expect(ended).toMatchObject(
      [80, 443].map((port) => ({ name: 'shop.example', destination: { address: nowhere, port } })),
    )
  })

  test('is asked for the address of a TLS connection otherwise', async () => {
    const { code, stdout, ended } = await run(
      '--json',
      ...['-p', plugin, '--', 'sh', '-c', `exec ${curl('https')} 2>/dev/null`],
    )
    expect(code).not.toBe(0)
    expect(stdout).toBe('')
    expect(ended).toMatchObject([{ end: { how: 'failed' } }])
    expect(ended[0]).not.toHaveProperty('name')
  })
})

test('a file may say it', async () => {
  const file = `${directory}/tproxy.yaml`
  writeFileSync(file, `names: true\nplugins: ['socks=socks5://${gateway}:1080']\n`)
  const { stdout } = await run('-q', '-c', file, '--', 'sh', '-c', curl('https'))
  expect(stdout).toMatch(/^GET \/page from /)
})

test('a name that the upstream does not know fails, and never goes to the address', async () => {
  const before = world.reached.length
  const to = addresses[4].origin
  const script = `exec curl -sSk -m 8 --connect-to ::${to}:443 https://unknown.example/ 2>/dev/null`
  const args = ['--json', '--names', '-p', `socks=socks5://${gateway}:1080`, '--', 'sh', '-c', script]
  expect((await run(...args)).ended).toMatchObject([{ name: 'unknown.example', end: { how: 'failed' } }])
  expect(world.reached).toHaveLength(before)
})

test('a program that names localhost gets to the address that it chose', async () => {
  const to = addresses[4].origin
  const script = `curl -sS -m 8 --connect-to ::${to}:443 -k https://localhost/page`
  const { stdout } = await run(
    '-q',
    '--names',
    '-p',
    `socks=socks5://${gateway}:1080`,
    '--',
    'sh',
    '-c',
    script,
  )
  expect(stdout).toMatch(/^GET \/page from /)
})
