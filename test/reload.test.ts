import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { writeConfig } from './rig/config.ts'
import { useDirectory } from './rig/directory.ts'
import { events } from './rig/lines.ts'
import { microsocks } from './rig/servers.ts'
import { json, run, start } from './rig/tproxy-run.ts'
import { addresses, World } from './rig/world.ts'

const { origin } = addresses[4]
const directory = useDirectory()
const file = `${directory}/tproxy.yaml`

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

describe('reloading', () => {
  const [target, reason] = [[origin, 7], 'dport 7'] as const
  beforeEach(() => writeConfig(file, `drop tcp dport 9`))

  test('leaves open connections as they were, and decides new ones', async () => {
    await using program = await start(world, ['--config', file])
    const held = await holdDial(world.client, target, { echo: 1000 })
    writeConfig(file, `reject tcp ${reason}`)
    expect(await json(world, 'reload')).toMatchObject({ rules: 1, default: 'proxy', restart: [] })
    expect(await dial(world.client, target)).toMatchObject({ end: 'ECONNREFUSED' })
    expect(await held.release()).toMatchObject({ equal: true })
    expect(events(program, 'reloaded')).toMatchObject([{ rules: 1 }])
    expect((await json(world, 'rules')).rules).toMatchObject([{ rule: 'reject tcp dport 7' }])
  })

  test('with --reset ends those that the new rules decide differently', async () => {
    await using _program = await start(world, ['--config', file])
    const [lost, kept] = [
      await holdDial(world.client, target),
      await holdDial(world.client, [origin, 22], { send: 'hello', shutdown: true }),
    ]
    writeConfig(file, `reject tcp ${reason}`)
    expect(await json(world, 'reload', '--reset')).toMatchObject({ rules: 1 })
    expect(await lost.release()).toMatchObject({ end: 'ECONNRESET' })
    expect(await kept.release()).toMatchObject({ end: 'fin', received: 18 })
  })

  test('of a bad file fails, and changes nothing', async () => {
    await using program = await start(world, ['--config', file])
    writeConfig(file, 'drop tcp prot 7', 'deny all')
    const { code, stderr } = await run(world, ['reload'])
    expect(code).toBe(125)
    expect(stderr).toMatch(
      new RegExp(`^tproxy-run: process ${program.pid}: ${file}:3:14: expected .*; ${file}:4:5: `),
    )
    expect((await json(world, 'rules')).rules).toMatchObject([{ rule: 'drop tcp dport 9' }])
    expect(events(program, 'warning').map(({ message }) => message)).toEqual([
      expect.stringContaining(`the rules stay as they are: ${file}:3:14: expected`),
      expect.stringContaining(`the rules stay as they are: ${file}:4:5: expected`),
    ])
    writeConfig(file, 'proxy via nobody')
    expect(JSON.parse((await run(world, ['reload', '--json'])).stdout)).toEqual({
      event: 'error',
      code: 'E_RULE',
      message: `process ${program.pid}: rule 1: there is no plugin nobody`,
      hint: 'there is none at all',
    })
    expect((await json(world, 'rules')).rules).toMatchObject([{ rule: 'drop tcp dport 9' }])
    expect(await dial(world.client, target, { echo: 10 })).toMatchObject({ equal: true })
  })

  test('warns of rules that never match', async () => {
    await using program = await start(world, ['--config', file])
    writeConfig(file, 'drop tcp', 'drop tcp dport 9')
    await json(world, 'reload')
    expect(events(program, 'warning')).toMatchObject([
      { message: expect.stringMatching(/^rule 2 never matches: rule 1 covers it/) },
    ])
  })

  test('changes plugins too, while a long transfer goes on', async () => {
    await using _socks = await microsocks(world.internet, '198.51.100.1', 1080)
    writeFileSync(file, 'interfaces: [wan0]\n')
    await using program = await start(world, ['--config', file])
    // It lasts for as long as all that follows, and then goes on.
    const reader = 'head -c 20000000 >/dev/null; while [ ! -e /run/go ]; do sleep 0.05; done; wc -c'
    const get = `curl -s http://${origin}/bytes/60000000 | { ${reader}; }`
    await using transfer = world.client.spawn('sh', ['-c', get], { input: '' })
    await program.until((p) => events(p, 'session-start').length === 1, 'the transfer')
    const fresh = async () => {
      const before = events(program, 'session-start').length
      await world.client.sh(`curl -s -m 3 http://${origin}`)
      await program.until((p) => events(p, 'session-start').length > before, 'a session')
      const { verdict, plugin } = events(program, 'session-start').at(-1) ?? {}
      return { verdict, plugin }
    }
    expect(await fresh()).toMatchObject({ verdict: 'direct' })

    const text =
      'interfaces: [wan0]\nplugins: [socks=socks5://198.51.100.1:1080]\nrules:\n  - proxy via socks\n'
    writeFileSync(file, text)
    expect(await json(world, 'reload')).toMatchObject({ rules: 1, plugins: ['socks'], restart: [] })
    expect(await fresh()).toEqual({ verdict: 'via', plugin: 'socks' })
    expect(transfer.child.exitCode).toBeNull()
    writeFileSync(file, text.replace('1080', '99999'))
    expect((await run(world, ['reload'])).stderr).toContain('the URL does not parse')
    expect(await fresh()).toEqual({ verdict: 'via', plugin: 'socks' })
    // A rule still names it.
    writeFileSync(file, 'interfaces: [wan0]\nrules:\n  - proxy via socks\n')
    expect((await run(world, ['reload'])).stderr).toContain('there is no plugin socks')
    expect(await fresh()).toEqual({ verdict: 'via', plugin: 'socks' })
    writeFileSync(file, 'interfaces: [wan0]\ndefault-verdict: drop\n')
    expect(await json(world, 'reload')).toMatchObject({ rules: 0, plugins: [], verdict: 'drop', restart: [] })
    expect(await dial(world.client, target)).toMatchObject({ end: 'ECONNREFUSED' })
    expect(transfer.child.exitCode).toBeNull()
    await world.client.sh('touch /run/go')
    expect((await transfer.exited).stdout.trim()).toBe('40000000')
    await world.client.sh('rm /run/go')
  })

  test('says what only a restart puts in force', async () => {
    await using _program = await start(world, ['--config', file])
    writeFileSync(file, 'interfaces: [wan0, wan1]\nidle-timeout: 5m\ndefault-action: direct\n')
    expect(await json(world, 'reload')).toMatchObject({
      rules: 0,
      default: 'direct',
      restart: ['interfaces', 'idle-timeout'],
    })
  })

  test('is also done at SIGHUP', async () => {
    await using program = await start(world, ['--config', file])
    writeConfig(file, `reject tcp ${reason}`)
    program.kill('SIGHUP')
    await program.until((p) => events(p, 'reloaded').length === 1, 'a reload')
    expect(await dial(world.client, target)).toMatchObject({ end: 'ECONNREFUSED' })
    writeConfig(file, 'nonsense')
    program.kill('SIGHUP')
    await program.until((p) => events(p, 'warning').length === 1, 'a warning')
    expect(await dial(world.client, target)).toMatchObject({ end: 'ECONNREFUSED' })
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })

  test('SIGHUP ends one that has no file', async () => {
    await using program = await start(world, ['-i', 'wan0'])
    expect((await run(world, ['reload'])).stderr).toContain('no file to read again')
    expect(await program.stop('SIGHUP')).toMatchObject({ code: 0 })
  })

  test('works in command form too, where SIGHUP is the command’s', async () => {
    const script = 'trap "echo hup" HUP; echo up; while :; do sleep .05; done'
    await using program = world.run(['--config', file, '--', 'bash', '-c', script], { input: '' })
    await program.until(({ stdout }) => stdout.includes('up'), 'the command')
    writeConfig(file, 'drop tcp', 'direct udp')
    expect(await json(world, 'reload')).toMatchObject({ rules: 2 })
    program.kill('SIGHUP')
    await program.until(({ stdout }) => stdout.includes('hup'), 'the signal')
    await program.stop()
  })
})
