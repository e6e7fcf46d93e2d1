import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import type { Program, Result } from './rig/host.ts'
import { microsocks } from './rig/servers.ts'
import { stateOf } from './rig/state.ts'
import { addresses, tproxyRun, World } from './rig/world.ts'

const { origin, client } = addresses[4]
const directory = mkdtempSync(`${tmpdir()}/rig-rules-`)
const file = `${directory}/tproxy.yaml`

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(async () => {
  rmSync(directory, { recursive: true })
  await world?.close()
})

const write = (...rules: readonly string[]) =>
  writeFileSync(file, `interfaces: [wan0]\nrules:\n${rules.map((rule) => `  - ${rule}\n`).join('')}`)

async function run(...args: readonly string[]): Promise<Result> {
  await using program = world.run(args, { input: '' })
  return await program.exited
}

async function start(...args: readonly string[]): Promise<Program> {
  const program = world.run(['--json', '--config', file, ...args], { input: '' })
  await program.until((p) => p.events.some(({ event }) => event === 'ready'), 'a ready line')
  return program
}

// biome-ignore lint: a test knows what was printed
async function json(...args: readonly string[]): Promise<any> {
  const { code, stdout, stderr } = await run(...args, '--json')
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return JSON.parse(stdout)
}

const events = (program: Program, name: string) => program.events.filter(({ event }) => event === name)

/** Commands that ask a running one need only one to run. */
describe('one that runs', () => {
  test('starts by a file, shows its rules with what they counted, and leaves nothing', async () => {
    write('direct tcp dport 7', 'drop tcp dport 1', 'drop tcp dport 1 uid 5', 'reject tcp dport 22')
    const before = await stateOf(world.client)
    await using program = await start()
    expect(await dial(world.client, [origin, 7], { echo: 1000 })).toMatchObject({ equal: true })
    expect(await dial(world.client, [origin, 22])).toMatchObject({ end: 'ECONNREFUSED' })
    await world.client.sh(`curl -s -m 3 http://${origin}`)

    const { rules, default: rest, shadowed } = await json('rules')
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

    const { stdout } = await run('rules')
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
    write('proxy tcp dport 7')
    const plugin = `${directory}/remembering.ts`
    writeFileSync(plugin, "export default () => () => ({ kind: 'direct', remember: { ttl: 60_000 } })")
    await using _program = await start('--plugin', plugin)
    const explain = (uid: string) => json('rules', 'explain', 'tcp', client, `${origin}:7`, '--uid', uid)
    const before = await explain('0')
    expect(before).toMatchObject({ rule: 1, action: 'proxy' })
    expect(before).not.toHaveProperty('remembered')
    for (let times = 0; times < 2; times++)
      expect(await dial(world.client, [origin, 7], { echo: 1000 })).toMatchObject({ equal: true })
    expect(await explain('0')).toMatchObject({ rule: 1, remembered: { verdict: 'direct' } })
    expect(await explain('5')).toEqual({ ...before, packet: expect.objectContaining({ uid: 5 }) })
    expect(await json('status')).toMatchObject({ recalled: 1 })
  })

  test('explains what then happens', async () => {
    write(
      `drop tcp dport 9 to ${origin}`,
      'reject tcp dport 22',
      'direct tcp process curl dport 80',
      'direct tcp dport 80 not uid 65534',
      'proxy tcp dport 80',
    )
    await using program = await start()
    const explain = (port: number, ...more: string[]) =>
      json('rules', 'explain', 'tcp', client, `${origin}:${port}`, '--interface', 'wan0', ...more)
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
    const said = await run('rules', 'explain', 'tcp', client, `${origin}:22`)
    expect(await run('rules', 'explain', 'tcp', client, `${origin}:22`, '--config', file)).toEqual(said)
    expect(said.stdout).toBe(`rule 2 matches first: reject tcp dport 22
what speaks against the rules before it:
     1  drop tcp to ${origin} dport 9  protocol or dport
`)
  })

  test('reports what a rule with log decides', async () => {
    write('drop udp dport 53 log', 'direct tcp dport 7 log')
    await using program = await start()
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
    write('direct tcp dport 7')
    await using program = await start()
    await using watcher = world.run(['rules', '--watch', '--json'], { input: '' })
    await watcher.until((p) => events(p, 'rules').length === 1, 'a first look')
    expect(watcher.events[0].rules[0].packets).toBe(0)
    await dial(world.client, [origin, 7], { echo: 10 })
    await watcher.until((p) => p.events.at(-1).rules[0].packets > 0, 'a count')

    await watcher.stop('SIGKILL')
    await sleep(1500)
    expect((await json('rules')).rules).toHaveLength(1)
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })
})

describe('reloading', () => {
  const [target, reason] = [[origin, 7], 'dport 7'] as const
  beforeEach(() => write(`drop tcp dport 9`))

  test('leaves open connections as they were, and decides new ones', async () => {
    await using program = await start()
    const held = await holdDial(world.client, target, { echo: 1000 })
    write(`reject tcp ${reason}`)
    expect(await json('reload')).toMatchObject({ rules: 1, default: 'proxy', restart: [] })
    expect(await dial(world.client, target)).toMatchObject({ end: 'ECONNREFUSED' })
    expect(await held.release()).toMatchObject({ equal: true })
    expect(events(program, 'reloaded')).toMatchObject([{ rules: 1 }])
    expect((await json('rules')).rules).toMatchObject([{ rule: 'reject tcp dport 7' }])
  })

  test('with --reset ends those that the new rules decide differently', async () => {
    await using _program = await start()
    const [lost, kept] = [await holdDial(world.client, target), await holdDial(world.client, [origin, 22])]
    write(`reject tcp ${reason}`)
    expect(await json('reload', '--reset')).toMatchObject({ rules: 1 })
    expect(await lost.release()).toMatchObject({ end: 'ECONNRESET' })
    kept.program.kill()
  })

  test('of a bad file fails, and changes nothing', async () => {
    await using program = await start()
    write('drop tcp prot 7', 'deny all')
    const { code, stderr } = await run('reload')
    expect(code).toBe(125)
    expect(stderr).toMatch(
      new RegExp(`^tproxy-run: process ${program.pid}: ${file}:3:14: expected .*; ${file}:4:5: `),
    )
    expect((await json('rules')).rules).toMatchObject([{ rule: 'drop tcp dport 9' }])
    expect(events(program, 'warning').map(({ message }) => message)).toEqual([
      expect.stringContaining(`the rules stay as they are: ${file}:3:14: expected`),
      expect.stringContaining(`the rules stay as they are: ${file}:4:5: expected`),
    ])
    write('proxy via nobody')
    expect(JSON.parse((await run('reload', '--json')).stdout)).toEqual({
      event: 'error',
      code: 'E_RULE',
      message: `process ${program.pid}: rule 1: there is no plugin nobody`,
      hint: 'there is none at all',
    })
    expect((await json('rules')).rules).toMatchObject([{ rule: 'drop tcp dport 9' }])
    expect(await dial(world.client, target, { echo: 10 })).toMatchObject({ equal: true })
  })

  test('warns of rules that never match', async () => {
    await using program = await start()
    write('drop tcp', 'drop tcp dport 9')
    await json('reload')
    expect(events(program, 'warning')).toMatchObject([
      { message: expect.stringMatching(/^rule 2 never matches: rule 1 covers it/) },
    ])
  })

  test('changes plugins too, while a long transfer goes on', async () => {
    await using _socks = await microsocks(world.internet, '198.51.100.1', 1080)
    writeFileSync(file, 'interfaces: [wan0]\n')
    await using program = await start()
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
    expect(await json('reload')).toMatchObject({ rules: 1, plugins: ['socks'], restart: [] })
    expect(await fresh()).toEqual({ verdict: 'via', plugin: 'socks' })
    expect(transfer.child.exitCode).toBeNull()
    writeFileSync(file, text.replace('1080', '99999'))
    expect((await run('reload')).stderr).toContain('the URL does not parse')
    expect(await fresh()).toEqual({ verdict: 'via', plugin: 'socks' })
    // A rule still names it.
    writeFileSync(file, 'interfaces: [wan0]\nrules:\n  - proxy via socks\n')
    expect((await run('reload')).stderr).toContain('there is no plugin socks')
    expect(await fresh()).toEqual({ verdict: 'via', plugin: 'socks' })
    writeFileSync(file, 'interfaces: [wan0]\ndefault-verdict: drop\n')
    expect(await json('reload')).toMatchObject({ rules: 0, plugins: [], verdict: 'drop', restart: [] })
    expect(await dial(world.client, target)).toMatchObject({ end: 'ECONNRESET' })
    expect(transfer.child.exitCode).toBeNull()
    await world.client.sh('touch /run/go')
    expect((await transfer.exited).stdout.trim()).toBe('40000000')
    await world.client.sh('rm /run/go')
  })

  test('says what only a restart puts in force', async () => {
    await using _program = await start()
    writeFileSync(file, 'interfaces: [wan0, wan1]\nidle-timeout: 5m\ndefault-action: direct\n')
    expect(await json('reload')).toMatchObject({
      rules: 0,
      default: 'direct',
      restart: ['interfaces', 'idle-timeout'],
    })
  })

  test('is also done at SIGHUP', async () => {
    await using program = await start()
    write(`reject tcp ${reason}`)
    program.kill('SIGHUP')
    await program.until((p) => events(p, 'reloaded').length === 1, 'a reload')
    expect(await dial(world.client, target)).toMatchObject({ end: 'ECONNREFUSED' })
    write('nonsense')
    program.kill('SIGHUP')
    await program.until((p) => events(p, 'warning').length === 1, 'a warning')
    expect(await dial(world.client, target)).toMatchObject({ end: 'ECONNREFUSED' })
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })

  test('SIGHUP ends one that has no file', async () => {
    await using program = world.run(['--json', '-i', 'wan0'], { input: '' })
    await program.until((p) => events(p, 'ready').length === 1, 'a ready line')
    expect((await run('reload')).stderr).toContain('no file to read again')
    expect(await program.stop('SIGHUP')).toMatchObject({ code: 0 })
  })

  test('works in command form too, where SIGHUP is the command’s', async () => {
    const script = 'trap "echo hup" HUP; echo up; while :; do sleep .05; done'
    await using program = world.run(['--config', file, '--', 'bash', '-c', script], { input: '' })
    await program.until(({ stdout }) => stdout.includes('up'), 'the command')
    write('drop tcp', 'direct udp')
    expect(await json('reload')).toMatchObject({ rules: 2 })
    program.kill('SIGHUP')
    await program.until(({ stdout }) => stdout.includes('hup'), 'the signal')
    await program.stop()
  })
})

describe('the control socket', () => {
  test('is only ours, and goes with us', async () => {
    write('drop tcp dport 9')
    await using program = await start()
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
    write('drop tcp dport 9')
    const dead = await start()
    await dead.stop('SIGKILL')
    expect(await world.client.sh('ls /run/tproxy/*/')).toContain(`${dead.pid}.sock`)
    expect(await run('rules')).toMatchObject({
      code: 125,
      stderr: expect.stringContaining('no tproxy-run runs'),
    })
    await run('clean')
    expect(await world.client.sh('ls -A /run /run/tproxy')).toBe(
      '/run:\ntproxy\n\n/run/tproxy:\ntrial.json\n',
    )
  })

  test('of several is chosen by --pid', async () => {
    write('drop tcp dport 9')
    await using first = await start()
    await using second = world.run(['--json', '-i', 'wan1'], { input: '' })
    await second.until((p) => events(p, 'ready').length === 1, 'a ready line')
    const { code, stderr } = await run('rules')
    expect(code).toBe(125)
    expect(stderr).toMatch(/2 tproxy-run run here: .*--pid/)
    for (const { pid } of [first, second]) expect(stderr).toContain(String(pid))
    expect((await json('rules', '--pid', String(first.pid))).rules).toHaveLength(1)
    expect((await json('rules', '--pid', String(second.pid))).rules).toHaveLength(0)
    expect((await run('rules', '--pid', '1')).stderr).toContain('--pid 1 is no tproxy-run here')
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
    write('drop tcp', 'drop tcp dport 9')
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
