import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial } from './rig/client.ts'
import { writeConfig } from './rig/config.ts'
import { useDirectory } from './rig/directory.ts'
import { events } from './rig/lines.ts'
import { stateOf } from './rig/state.ts'
import { json, run, start } from './rig/tproxy-run.ts'
import { addresses, tproxyRun, World } from './rig/world.ts'

const { origin, client } = addresses[4]
const directory = useDirectory()
const file = `${directory}/tproxy.yaml`

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

/** Commands that ask a running one need only one to run. */
describe('one that runs', () => {
  test('starts by a file, shows its rules with what they counted, and leaves nothing', async () => {
    writeConfig(
      file,
      'direct tcp dport 7',
      'drop tcp dport 1',
      'drop tcp dport 1 uid 5',
      'reject tcp dport 22',
    )
    const before = await stateOf(world.client)
    await using program = await start(world, ['--config', file])
    expect(await dial(world.client, [origin, 7], { echo: 1000 })).toMatchObject({ equal: true })
    expect(await dial(world.client, [origin, 22])).toMatchObject({ end: 'ECONNREFUSED' })
    await world.client.sh(`curl -s -m 3 http://${origin}`)

    const { rules, default: rest, shadowed } = await json(world, 'rules')
    expect(rules).toMatchObject([
      { number: 1, rule: 'direct tcp dport 7' },
      { number: 2, rule: 'drop tcp dport 1', packets: 0, bytes: 0 },
      { number: 3, packets: 0 },
      { number: 4, rule: 'reject tcp dport 22', packets: 1 },
    ])
    expect(rules[0].packets).toBeGreaterThan(3)
    expect(rules[0].bytes).toBeGreaterThan(1000)
    expect(rest).toMatchObject({ action: 'proxy', packets: expect.any(Number) })
    // Until it is spliced.
    expect(rest.packets).toBeGreaterThanOrEqual(3)
    expect(shadowed).toEqual([{ rule: 3, by: 2 }])

    const { stdout } = await run(world, ['rules'])
    expect(stdout).toMatch(/^#\s+packets\s+bytes\s+rule\n1\s+\d+\s+\d.*B\s+direct tcp dport 7\n/)
    expect(stdout).toMatch(/\n3 .*drop tcp dport 1 uid 5 {2}\(never matches: rule 2 covers it\)\n/)
    expect(stdout).toMatch(/ default proxy\n$/)

    expect(events(program, 'warning')).toMatchObject([
      {
        message: 'rule 3 never matches: rule 2 covers it (3: drop tcp dport 1 uid 5; 2: drop tcp dport 1)',
      },
    ])
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
    expect(await stateOf(world.client)).toEqual(before)
  })

  test('explains that a remembered verdict decides, and status counts what it decided', async () => {
    writeConfig(file, 'proxy tcp dport 7')
    const plugin = `${directory}/remembering.ts`
    writeFileSync(plugin, "export default () => () => ({ kind: 'direct', remember: { ttl: 60_000 } })")
    await using _program = await start(world, ['--config', file, '--plugin', plugin])
    const explain = (uid: string) =>
      json(world, 'rules', 'explain', 'tcp', client, `${origin}:7`, '--uid', uid)
    const before = await explain('0')
    expect(before).toMatchObject({ rule: 1, action: 'proxy' })
    expect(before).not.toHaveProperty('remembered')
    for (let times = 0; times < 2; times++)
      expect(await dial(world.client, [origin, 7], { echo: 1000 })).toMatchObject({ equal: true })
    expect(await explain('0')).toMatchObject({ rule: 1, remembered: { verdict: 'direct' } })
    expect(await explain('5')).toEqual({ ...before, packet: expect.objectContaining({ uid: 5 }) })
    expect(await json(world, 'status')).toMatchObject({ recalled: 1 })
  })

  test('explains what then happens', async () => {
    writeConfig(
      file,
      `drop tcp dport 9 to ${origin}`,
      'reject tcp dport 22',
      'direct tcp process curl dport 80',
      'direct tcp dport 80 not uid 65534',
      'proxy tcp dport 80',
    )
    await using program = await start(world, ['--config', file])
    const explain = (port: number, ...more: string[]) =>
      json(world, 'rules', 'explain', 'tcp', client, `${origin}:${port}`, '--interface', 'wan0', ...more)
    const sessions = () => events(program, 'session-start')

    expect(await explain(9)).toMatchObject({ rule: 1, action: 'drop', misses: [] })
    expect(await dial(world.client, [origin, 9], { timeout: 1 })).toMatchObject({ end: 'timeout' })

    expect(await explain(22)).toMatchObject({ rule: 2, action: 'reject', before: 1 })
    expect(await dial(world.client, [origin, 22])).toMatchObject({ end: 'ECONNREFUSED' })

    expect(await explain(80, '--process', 'curl')).toMatchObject({ rule: 3, action: 'direct' })
    await world.client.sh(`curl -s -m 3 http://${origin}`)
    expect(await explain(80, '--uid', '0')).toMatchObject({ rule: 4, action: 'direct' })
    expect(await dial(world.client, [origin, 80], { send: 'x\n\n', shutdown: true })).toMatchObject({
      end: 'fin',
    })
    expect(sessions()).toEqual([])

    expect(await explain(80, '--uid', '65534', '--process', 'client')).toMatchObject({
      rule: 5,
      action: 'proxy',
      misses: [
        { rule: 1, against: ['protocol or dport'] },
        { rule: 2 },
        { rule: 3, against: ['process'] },
        { rule: 4, text: 'direct tcp dport 80 not uid 65534', against: ['uid'] },
      ],
    })
    const by = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
    await dial(world.client, [origin, 80], { send: 'x\n\n', shutdown: true, by })
    await program.until(() => sessions().length === 1, 'a session')
    expect(sessions()[0]).toMatchObject({ rule: 5, verdict: 'direct' })

    // By the same rules, without the one that runs.
    const said = await run(world, ['rules', 'explain', 'tcp', client, `${origin}:22`])
    expect(await run(world, ['rules', 'explain', 'tcp', client, `${origin}:22`, '--config', file])).toEqual(
      said,
    )
    expect(said.stdout).toBe(`rule 2 matches first: reject tcp dport 22
what speaks against the rules before it:
     1  drop tcp to ${origin} dport 9  protocol or dport
`)
  })

  test('reports what a rule with log decides', async () => {
    writeConfig(file, 'drop udp dport 53 log', 'direct tcp dport 7 log')
    await using program = await start(world, ['--config', file])
    await dial(world.client, [origin, 7], { echo: 10 })
    await world.client.sh(`echo hello >/dev/udp/${origin}/53`)
    await program.until((p) => events(p, 'rule').length === 2, 'two rule events')
    expect(events(program, 'rule')).toMatchObject([
      {
        rule: 2,
        action: 'direct',
        protocol: 6,
        source: { address: client },
        destination: { address: origin, port: 7 },
        interface: 'wan0',
        process: { name: 'client' },
      },
      { rule: 1, action: 'drop', protocol: 17, destination: { address: origin, port: 53 }, bytes: 34 },
    ])
  })

  test('tells a watcher what changes', async () => {
    writeConfig(file, 'direct tcp dport 7')
    await using program = await start(world, ['--config', file])
    await using watcher = world.run(['rules', '--watch', '--json'], { input: '' })
    await watcher.until((p) => events(p, 'rules').length === 1, 'a first look')
    expect(watcher.events[0].rules[0].packets).toBe(0)
    await dial(world.client, [origin, 7], { echo: 10 })
    await watcher.until((p) => p.events.at(-1).rules[0].packets > 0, 'a count')

    await watcher.stop('SIGKILL')
    await sleep(1500)
    expect((await json(world, 'rules')).rules).toHaveLength(1)
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })
})

describe('without privileges', () => {
  const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
  const as = async (...args: readonly string[]) => {
    const [command = '', ...rest] = [...nobody, ...tproxyRun, ...args]
    await world.client.sh(`chmod 755 ${directory}; chmod 644 ${directory}/*`)
    return world.client.run(command, rest)
  }

  test('a file can be checked', async () => {
    writeConfig(file, 'drop tcp', 'drop tcp dport 9')
    expect(await as('rules', 'check', file)).toMatchObject({
      code: 0,
      stdout: `${file}:4:5: warning: rule 2 never matches: rule 1 covers it (drop tcp) (put it before rule 1, or remove it)
${file} is valid: 1 warning
`,
    })
    expect(await as('rules', 'check', file)).toEqual(await as('check', file))
    writeFileSync(`${directory}/list.rules`, 'drop foo\ndirect\ndefault nothing\nredirect:nowhere0\n')
    const { code, stdout, stderr } = await as('rules', 'check', `${directory}/list.rules`)
    expect({ code, stderr }).toEqual({ code: 1, stderr: '' })
    expect(stdout.split('\n').map((line) => line.split(' ').slice(0, 2))).toEqual([
      [`${directory}/list.rules:1:6:`, 'error:'],
      [`${directory}/list.rules:3:9:`, 'error:'],
      [`${directory}/list.rules:4:10:`, 'error:'],
      [`${directory}/list.rules:`, '3'],
      [''],
    ])
    expect(await as('rules', 'check', '/nonexistent')).toMatchObject({
      code: 1,
      stdout: '/nonexistent: error: no such file\n/nonexistent: 1 error, 0 warnings\n',
    })
  })

  test('a packet can be explained by a file of ten thousand rules', async () => {
    const rules = Array.from(
      { length: 10_000 },
      (_, i) => `drop tcp to 10.${i >> 8}.${i & 255}.0/24 dport 80`,
    )
    writeFileSync(`${directory}/many.rules`, rules.join('\n'))
    const { code, stdout } = await as(
      ...['rules', 'explain', 'tcp', '192.0.2.1', '10.39.15.1:80', '--rules', `${directory}/many.rules`],
    )
    expect(code).toBe(0)
    expect(stdout).toContain('rule 10000 matches first: drop tcp to 10.39.15.0/24 dport 80\n')
    expect(stdout).toContain('the nearest of the 9999 rules before it:\n')
    expect(stdout.split('\n').length).toBeLessThan(20)
  })
})
