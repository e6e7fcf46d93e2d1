import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { writeConfig } from './rig/config.ts'
import { useDirectory } from './rig/directory.ts'
import { json, run, start } from './rig/tproxy-run.ts'
import { World } from './rig/world.ts'

const directory = useDirectory()
const file = `${directory}/tproxy.yaml`

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

describe('the control socket', () => {
  test('is only ours, and goes with us', async () => {
    writeConfig(file, 'drop tcp dport 9')
    await using program = await start(world, ['--config', file])
    const path = (await world.client.sh('echo /run/tproxy/*/*.sock')).trim()
    expect(path).toMatch(new RegExp(`/${program.pid}\\.sock$`))
    expect(await world.client.sh(`stat -c %a ${path} $(dirname ${path})`)).toBe('600\n700\n')
    expect(await world.client.sh(`! setpriv --reuid=65534 cat ${path} 2>&1`)).toContain('Permission denied')
    await program.stop()
    expect(await world.client.sh('ls -A /run /run/tproxy')).toBe(
      '/run:\ntproxy\n\n/run/tproxy:\ntrial.json\n',
    )
  })

  test('of a dead process is passed over, and cleaned away', async () => {
    writeConfig(file, 'drop tcp dport 9')
    const dead = await start(world, ['--config', file])
    await dead.stop('SIGKILL')
    expect(await world.client.sh('ls /run/tproxy/*/')).toContain(`${dead.pid}.sock`)
    expect(await run(world, ['rules'])).toMatchObject({
      code: 125,
      stderr: expect.stringContaining('no tproxy-run runs'),
    })
    await run(world, ['clean'])
    expect(await world.client.sh('ls -A /run /run/tproxy')).toBe(
      '/run:\ntproxy\n\n/run/tproxy:\ntrial.json\n',
    )
  })

  test('of several is chosen by --pid', async () => {
    writeConfig(file, 'drop tcp dport 9')
    await using first = await start(world, ['--config', file])
    await using second = await start(world, ['-i', 'wan1'])
    const { code, stderr } = await run(world, ['rules'])
    expect(code).toBe(125)
    expect(stderr).toMatch(/2 tproxy-run run here: .*--pid/)
    for (const { pid } of [first, second]) expect(stderr).toContain(String(pid))
    expect((await json(world, 'rules', '--pid', String(first.pid))).rules).toHaveLength(1)
    expect((await json(world, 'rules', '--pid', String(second.pid))).rules).toHaveLength(0)
    expect((await run(world, ['rules', '--pid', '1'])).stderr).toContain('--pid 1 is no tproxy-run here')
  })
})
