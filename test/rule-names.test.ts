import { mkdirSync, rmdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, inCgroup } from './rig/client.ts'
import { addresses, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]

  describe('a cgroup', () => {
    test('counts with all below it, and is found when it is made later', async () => {
      const path = world.client.cgroup.slice(world.client.cgroup.lastIndexOf('/rig-'))
      await using started = await world.proxy({
        interfaces: ['wan0'],
        rules: [`reject cgroup ${path}/watched-${family}`],
      })
      const name = `watched-${family}/below`
      mkdirSync(`${world.client.cgroup}/${name}`, { recursive: true })
      await expect
        .poll(
          async () =>
            (
              await dial(world.client, [origin, 7], {
                by: inCgroup(world.client, name),
                send: 'x',
                shutdown: true,
              })
            ).end,
        )
        .toBe('ECONNREFUSED')
      expect((await dial(world.client, [origin, 7], { send: 'x', shutdown: true })).end).toBe('fin')
      for (const it of [name, `watched-${family}`]) rmdirSync(`${world.client.cgroup}/${it}`)
      await started.stop()
    })
  })

  test('a systemd unit that a rule names is found when it starts later', async () => {
    const unit = `later-${family}.service`
    await using started = await world.proxy({ interfaces: ['wan0'], rules: [`reject cgroup ${unit}`] })
    const name = `some.slice/${unit}`
    mkdirSync(`${world.client.cgroup}/some.slice`)
    await sleep(500)
    mkdirSync(`${world.client.cgroup}/${name}`)
    const end = async () =>
      (
        await dial(world.client, [origin, 7], {
          by: inCgroup(world.client, name),
          send: 'x',
          shutdown: true,
        })
      ).end
    await expect.poll(end).toBe('ECONNREFUSED')
    for (const it of [name, 'some.slice']) rmdirSync(`${world.client.cgroup}/${it}`)
    await started.stop()
  })

  test('when the interface of a redirect is gone, it is said, and the other rules keep up', async () => {
    await world.client.sh('ip link add out0 type dummy || ip link add out0 type veth peer name out1')
    const path = world.client.cgroup.slice(world.client.cgroup.lastIndexOf('/rig-'))
    const name = `new-${family}`
    const rules = ['redirect:out0 udp dport 9', `reject cgroup ${path}/${name}`]
    await using started = await world.proxy({ interfaces: ['wan0'], rules })
    await world.client.sh('ip link del out0')
    const said = 'what is redirected to out0 is lost: that interface is gone'
    await started.until(({ stdout }) => stdout.includes(said), 'a warning')
    mkdirSync(`${world.client.cgroup}/${name}`)
    const by = inCgroup(world.client, name)
    await expect
      .poll(async () => (await dial(world.client, [origin, 7], { by, send: 'x', shutdown: true })).end)
      .toBe('ECONNREFUSED')
    rmdirSync(`${world.client.cgroup}/${name}`)
    await started.stop()
  })
})
