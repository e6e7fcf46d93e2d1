import { expect, test } from 'vitest'
import { microsocks } from './rig/servers.ts'
import { addresses, World } from './rig/world.ts'

test('what the plugin sends through the proxy reaches the origin from there', async () => {
  await using world = await World.create()
  await using _socks = await microsocks(world.internet, addresses[4].gateway, 1080)
  const plugin = `socks=socks5://${addresses[4].gateway}:1080`

  await using program = world.run([
    '--json',
    '--plugin',
    plugin,
    '--',
    'curl',
    '-s',
    `http://${addresses[4].url}/hello`,
  ])
  const { code, stdout, stderr } = await program.exited
  expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining('GET /hello from ') })
  expect(stderr).toContain('"verdict":"via"')
  expect(world.reached).toHaveLength(1)
})
