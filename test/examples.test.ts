import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Program } from './rig/host.ts'
import { microsocks } from './rig/servers.ts'
import { addresses, World } from './rig/world.ts'

const examples = fileURLToPath(new URL('../examples/', import.meta.url))
const upstream = `socks5://${addresses[4].gateway}:1080`
const { url, client } = addresses[4]
const directory = mkdtempSync(`${tmpdir()}/rig-examples-`)

let world: World
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  world = stack.use(await World.create())
  stack.defer(() => rmSync(directory, { recursive: true }))
  stack.use(await microsocks(world.internet, '::', 1080))
})
afterAll(() => stack.disposeAsync())

async function example(file: string, ...args: readonly string[]): Promise<Program> {
  const program = world.client.spawn(`${examples}run`, [file, ...args])
  await program.until(({ stdout }) => stdout.includes('ready\n'), 'a ready line')
  return program
}

async function curl(target: string): Promise<string> {
  const { stdout, stderr } = await world.client.run('curl', ['-sSk', '-m', '5', target])
  expect(stderr).toBe('')
  return stdout
}

const last = () => world.reached.at(-1)

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

test('by-process.ts lets each program take its own way', async () => {
  const plugin = `${examples}by-process.ts=${upstream}`
  await using program = world.run(['--json', '-i', 'wan0', '-p', plugin], { input: '' })
  await program.until((p) => p.events.some(({ event }) => event === 'ready'), 'a ready line')
  const session = async (name: string, uid = 0) => {
    const find = () =>
      program.events.find(
        ({ event, process }) => event === 'session-start' && process?.name === name && process.uid === uid,
      )
    await program.until(() => find() !== undefined, `a session of ${name}`)
    return find()
  }

  await curl(`http://${url}/`)
  expect(last()?.from).not.toBe(client)
  expect(await session('curl')).toMatchObject({ verdict: 'via', plugin: 'byProcess', upstream })

  // The kernel names a process by the file it runs.
  for (const name of ['telnet', 'browser']) copyFileSync('/usr/bin/curl', `${directory}/${name}`)
  await world.client.sh(`chmod -R a+rx ${directory}; ! ${directory}/telnet -s -m 5 http://${url}/`)
  expect(await session('telnet')).toMatchObject({ verdict: 'drop', plugin: 'byProcess' })

  await world.client.sh(`${directory}/browser -s -m 5 http://${url}/`)
  expect(last()?.from).toBe(client)
  expect(await session('browser')).toMatchObject({ verdict: 'direct', plugin: 'byProcess' })

  const nobody = 'setpriv --reuid=65534 --regid=65534 --clear-groups'
  await world.client.sh(`${nobody} ${directory}/browser -s -m 5 http://${url}/`)
  const unclaimed = await session('browser', 65534)
  expect(unclaimed).toMatchObject({ verdict: 'direct' })
  expect(unclaimed).not.toHaveProperty('plugin')

  expect(await program.stop()).toMatchObject({ code: 0 })
})

test('observe.ts changes nothing and prints who exchanged how much with whom', async () => {
  await using program = await example('observe.ts', 'wan0', '1')
  await curl(`http://${url}/bytes/5000`)
  expect(last()).toMatchObject({ port: 80, from: client })
  await curl(`https://${url}/`)
  const row = new RegExp(`curl.*${url}:80'.*\\b\\d+.*\\b5\\d\\d\\d\\b`)
  await program.until(({ stdout }) => row.test(stdout) && stdout.includes(`${url}:443'`), 'the table', 4000)
  expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
})
