import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { useDirectory } from './rig/directory.ts'
import { parsed } from './rig/lines.ts'
import { run } from './rig/tproxy-run.ts'
import { addresses, dialled, tproxyRun, World } from './rig/world.ts'

const page = `http://${addresses[4].url}`
const directory = useDirectory()

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

describe('doctor', () => {
  test('finds nothing missing, for people and for programs', async () => {
    expect(await run(world, ['doctor'])).toMatchObject({ code: 0, stderr: '' })
    const { code, stdout } = await run(world, ['doctor', '--json'])
    expect(code).toBe(0)
    expect(parsed(stdout).length).toBeGreaterThan(5)
    for (const check of parsed(stdout)) expect(check).toMatchObject({ event: 'check', status: 'ok' })
  })

  test('tries splicing; what it finds is what the next start goes by, until the kernel or the programs are others', async () => {
    const end = async () => {
      const { stderr } = await run(world, ['--json', '-p', dialled, '--', 'curl', '-s', '-m', '3', page])
      return parsed(stderr).find(({ event }) => event === 'session-end')
    }
    const record = '/run/tproxy/trial.json'
    const found = JSON.parse(await world.client.sh(`cat ${record}`))
    expect(found).not.toHaveProperty('problem')
    const say = (outcome: object) => world.client.sh(`echo '${JSON.stringify(outcome)}' >${record}`)

    await say({ ...found, problem: 'bytes are lost' })
    expect(await end()).toMatchObject({ carried: 'relay', notSpliced: 'bytes are lost' })
    const checks = parsed((await run(world, ['doctor', '--json'])).stdout)
    expect(checks.find(({ name }) => name === 'splice')).toMatchObject({ detail: 'tried, and right here' })
    expect(JSON.parse(await world.client.sh(`cat ${record}`))).toEqual(found)

    for (const other of [{ kernel: '6.6.0' }, { programs: '0' }]) {
      await say({ ...found, problem: 'bytes are lost', ...other })
      expect(await end()).toMatchObject({ carried: 'splice' })
      expect(JSON.parse(await world.client.sh(`cat ${record}`))).toEqual(found)
    }
  })

  test('looks at what a configuration file chooses', async () => {
    const config = `${directory}/doctor.yaml`
    writeFileSync(config, 'interfaces: [wan7]\nplugins: [socks]\n')
    const { code, stdout } = await run(world, ['doctor', '--json', '--config', config])
    expect(code).toBe(1)
    const lacking = parsed(stdout).filter(({ status }) => status !== 'ok')
    expect(lacking).toMatchObject([{ name: 'interfaces', detail: 'there is no interface wan7' }])
    const none = await run(world, ['doctor', '--config', `${directory}/none.yaml`])
    expect(none).toMatchObject({ code: 125, stderr: expect.stringContaining('none.yaml: no such file') })
  })

  test('misses a place for records where the start does, with the cause', async () => {
    const readOnly = ['-m', 'sh', '-c', 'mount -t tmpfs -o ro none /run && exec "$@"', 'sh']
    const cause = /\/run\/tproxy\/\d+: EROFS: read-only file system.*/
    const within = (...args: readonly string[]) =>
      world.client.run('unshare', [...readOnly, ...tproxyRun, ...args])
    const start = await within('--', 'true')
    expect(start).toMatchObject({ code: 125, stderr: expect.stringMatching(cause) })
    const { code, stdout } = await within('doctor', '--json')
    expect(code).toBe(1)
    expect(parsed(stdout).filter(({ status }) => status === 'missing')).toEqual([
      {
        event: 'check',
        name: 'records',
        status: 'missing',
        detail: expect.stringMatching(cause),
        remedy: '/run/tproxy must be writable',
      },
    ])
  })

  test('loads the programs under a profiler, whose signals interrupt the verifier', async () => {
    const profiled = { NODE_OPTIONS: '--cpu-prof --cpu-prof-interval=100 --cpu-prof-dir=/run' }
    expect(await run(world, ['doctor'], profiled)).toMatchObject({ code: 0, stderr: '' })
  })

  test('names the chain of a firewall that is in the way, and its remedy works', async () => {
    await world.client.sh(`nft 'table inet wall {
      chain inward { type filter hook input priority 0; policy drop; ct state established,related accept; }
    }'`)
    try {
      const blocked = await run(world, ['-p', dialled, '--', 'curl', '-s', '-m', '1', page])
      expect(blocked.code).toBe(28)
      const checks = parsed((await run(world, ['doctor', '--json'])).stdout).filter(
        ({ status }) => status !== 'ok',
      )
      expect(checks).toMatchObject([{ detail: expect.stringContaining('inet wall inward') }])
      await world.client.sh(checks[0].remedy)
      expect((await run(world, ['-p', dialled, '--', 'curl', '-s', '-m', '3', page])).code).toBe(0)
    } finally {
      await world.client.sh('nft delete table inet wall')
    }
  })
})
