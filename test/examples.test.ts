import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Program } from './rig/host.ts'
import { microsocks } from './rig/servers.ts'
import { addresses, World } from './rig/world.ts'

const examples = fileURLToPath(new URL('../examples/', import.meta.url))
const upstream = `socks5://${addresses[4].gateway}:1080`
const { url, client, origin } = addresses[4]
const directory = mkdtempSync(`${tmpdir()}/rig-examples-`)

let world: World
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  world = stack.use(await World.create())
  stack.defer(() => rmSync(directory, { recursive: true }))
  writeFileSync(`${directory}/hosts`, `${origin} corp.example www.corp.example notcorp.example\n`)
  for (const host of [world.client, world.internet])
    await host.sh(`mount --bind ${directory}/hosts /etc/hosts`)
  stack.use(await microsocks(world.internet, '::', 1080))
})
afterAll(() => stack.disposeAsync())

async function example(file: string, ...args: readonly string[]): Promise<Program> {
  const program = world.client.spawn(`${examples}run`, [file, ...args])
  await program.until(({ stdout }) => stdout.includes('ready\n'), 'a ready line')
  return program
}

/** tproxy-run on wan0 with a plugin of the examples, and its options as a configuration file has them. */
async function withPlugin(file: string, options: object): Promise<Program> {
  const config = `${directory}/tproxy.yaml`
  writeFileSync(
    config,
    JSON.stringify({ interfaces: ['wan0'], plugins: [{ name: examples + file, options }] }),
  )
  const program = world.run(['--json', '--config', config], { input: '' })
  await program.until((p) => p.events.some(({ event }) => event === 'ready'), 'a ready line')
  return program
}

async function curl(target: string): Promise<string> {
  const { stdout, stderr } = await world.client.run('curl', ['-sSk', '-m', '5', target])
  expect(stderr).toBe('')
  return stdout
}

const last = () => world.reached.at(-1)
const ended = (program: Program) => program.events.filter(({ event }) => event === 'session-end')

test('embed.ts sends HTTPS through the proxy, other things direct, and answers port 8080 itself', async () => {
  await using program = await example('embed.ts', 'wan0', upstream)

  expect(await curl(`https://${url}/`)).toMatch(/^GET \/ from /)
  expect(last()).toMatchObject({ port: 443 })
  expect(last()?.from).not.toBe(client)
  await program.until(
    ({ stdout }) => stdout.includes(`curl → ${url}:443 via`),
    'the session through the proxy',
  )

  expect(await curl(`http://${url}/`)).toMatch(/^GET \/ from /)
  expect(last()).toMatchObject({ port: 80, from: client })
  await program.until(({ stdout }) => stdout.includes(`curl → ${url}:80 direct`), 'the direct session')

  const before = world.reached.length
  expect(await curl(`http://${url}:8080/`)).toBe(`${url}:8080 is answered from here\n`)
  expect(world.reached).toHaveLength(before)

  expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
})

test('bandwidth.ts changes nothing and shows, as they run, what programs exchange', async () => {
  await using program = await example('bandwidth.ts', 'wan0', '0.2')
  await curl(`http://${url}/bytes/2000000`)
  expect(last()).toMatchObject({ port: 80, from: client })
  const row = (pattern: string) => new RegExp(`'curl' +│ ${pattern} `)
  await program.until(({ stdout }) => row('0 .*│ 2000').test(stdout), 'the totals of what has ended')
  await using slow = world.client.spawn('curl', ['-s', '--limit-rate', '5M', `http://${url}/bytes/90000000`])
  await program.until(
    ({ stdout }) => row('1 +│ \\d+ +│ [1-9]\\d*').test(stdout),
    'the rate of what runs',
    6000,
  )
  await slow.stop()
  expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
})

test('split-by-name.ts sends domains through the proxy, which resolves them, and leaves others alone', async () => {
  await using program = await withPlugin('split-by-name.ts', { url: upstream, domains: ['corp.example'] })
  for (const page of ['https://corp.example/', 'http://www.corp.example/']) {
    await curl(page)
    expect(last()?.from).not.toBe(client)
  }
  for (const page of ['https://notcorp.example/', `http://${url}/`]) {
    await curl(page)
    expect(last()?.from).toBe(client)
  }
  expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  expect(ended(program)).toMatchObject([
    { name: 'corp.example', upstream, plugin: 'split-by-name' },
    { name: 'www.corp.example', upstream },
    { name: 'notcorp.example', verdict: 'direct' },
    { verdict: 'direct' },
  ])
})

test('by-process.ts lets each program take its own way', async () => {
  const programs = { curl: upstream, telnet: 'drop', browser: 'direct' }
  await using program = await withPlugin('by-process.ts', { programs })
  // The kernel names a process by the file it runs.
  for (const name of ['telnet', 'browser', 'other']) copyFileSync('/usr/bin/curl', `${directory}/${name}`)
  await curl(`http://${url}/`)
  expect(last()?.from).not.toBe(client)
  await world.client.sh(`chmod -R a+rx ${directory}; ! ${directory}/telnet -s -m 5 http://${url}/`)
  for (const name of ['browser', 'other']) {
    await world.client.sh(`${directory}/${name} -s -m 5 http://${url}/`)
    expect(last()?.from).toBe(client)
  }
  expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  expect(ended(program)).toMatchObject([
    { process: { name: 'curl' }, verdict: 'via', upstream, plugin: 'by-process' },
    { process: { name: 'telnet' }, verdict: 'drop', plugin: 'by-process' },
    { process: { name: 'browser' }, verdict: 'direct', plugin: 'by-process' },
    { process: { name: 'other' }, verdict: 'direct' },
  ])
  expect(ended(program)[3]).not.toHaveProperty('plugin')
})

test('allow-list.ts lets a command reach what is on the list, and reports what it tried', async () => {
  writeFileSync(`${directory}/allowed.txt`, `corp.example\n${addresses[6].origin}\n`)
  const get = (target: string) => `curl -sSk -m 5 ${target} 2>/dev/null`
  const script = [
    get('https://www.corp.example/'),
    get(`http://${addresses[6].url}/`),
    `! ${get('https://notcorp.example/')}`,
    `! ${get(`http://${url}/`)}`,
    `! ${get(`http://${url}/`)}`,
    // The name of one and the address of another: it gets what has the name.
    get('--connect-to ::203.0.113.99:80 http://corp.example/'),
  ].join('\n')
  const plugin = `${examples}allow-list.ts=${directory}/allowed.txt`
  await using program = world.run(['-q', '-p', plugin, '--', 'sh', '-c', script], { input: '' })
  const { code, stdout, stderr } = await program.exited
  expect(stdout.match(/^GET \/ from /gm)).toHaveLength(3)
  expect(stderr.trimEnd().split('\n')).toEqual([
    `allowed  (no name) [${addresses[6].origin}]:80 by curl  ×1`,
    'allowed  corp.example 203.0.113.99:80 by curl  ×1',
    `allowed  www.corp.example ${origin}:443 by curl  ×1`,
    `refused  (no name) ${origin}:80 by curl  ×2`,
    `refused  notcorp.example ${origin}:443 by curl  ×1`,
  ])
  expect(code).toBe(0)
})

test('retry.ts goes over to the next proxy when one fails, and stays there', async () => {
  const dead = `socks5://${addresses[4].gateway}:4001`
  await using program = await withPlugin('retry.ts', { urls: `${dead},${upstream}` })
  for (const page of ['https', 'http']) {
    await curl(`${page}://${url}/`)
    expect(last()?.from).not.toBe(client)
  }
  const { code, stderr } = await program.stop()
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(ended(program)).toMatchObject([1, 2].map(() => ({ upstream: `${dead} or ${upstream}` })))
})

test('retry.ts gives up when all have failed twice', async () => {
  const dead = [4001, 4002].map((port) => `socks5://${addresses[4].gateway}:${port}`).join()
  await using program = await withPlugin('retry.ts', { urls: dead })
  await world.client.sh(`! curl -s -m 8 http://${url}/`)
  await program.until((p) => ended(p).length === 1, 'the end')
  expect(ended(program)).toMatchObject([
    { end: { how: 'failed', error: expect.stringContaining('ECONNREFUSED') } },
  ])
})

describe('redact.ts', () => {
  const secret = 'sk-0123456789'
  const file = `${directory}/secrets`

  test('replaces secrets in what is sent in the clear, however it is split, and nothing else', async () => {
    writeFileSync(file, `${secret}\nhunter2\n`)
    await using program = await withPlugin('redact.ts', { file })
    const parts = ['key sk-', '012345', '6789, not sk-01234 and sk-sk-0123456789 hun', 'ter2 hunter']
    const sending = parts.map((part) => `printf '${part}' >&3; sleep 0.05`).join('; ')
    const echoed = await world.client.sh(
      `exec 3<>/dev/tcp/${origin}/7; { ${sending}; } & head -c ${parts.join('').length - 6} <&3; wait`,
    )
    expect(echoed).toBe(`key ${'*'.repeat(13)}, not sk-01234 and sk-${'*'.repeat(13)} ******* `)
    await curl(`https://${url}/${secret}`)
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
    expect(ended(program)).toMatchObject([
      { plugin: 'redact', carried: 'relay', notSpliced: 'a plugin reads the bytes' },
      { plugin: 'redact', carried: 'splice' },
    ])
  })

  test('says at start which option is wrong', async () => {
    const config = `${directory}/wrong.yaml`
    writeFileSync(
      config,
      JSON.stringify({
        interfaces: ['wan0'],
        plugins: [{ name: `${examples}redact.ts`, options: { fil: file } }],
      }),
    )
    await using program = world.run(['--config', config], { input: '' })
    const { code, stderr } = await program.exited
    expect(code).toBe(125)
    expect(stderr).toContain('option file of redact is missing; redact has no option fil')
    expect(stderr).toContain('did you mean file?')
  })
})
