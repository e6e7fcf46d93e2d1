import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { holdDial } from './rig/client.ts'
import { useDirectory } from './rig/directory.ts'
import { events, parsed, starts } from './rig/lines.ts'
import { stateOf } from './rig/state.ts'
import { run, start } from './rig/tproxy-run.ts'
import { addresses, tproxyRun, World } from './rig/world.ts'

const page = `http://${addresses[4].url}`
const directory = useDirectory()

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

const onInterface = (...more: readonly string[]) => start(world, ['-i', 'wan0', ...more])

describe('on an interface', () => {
  test('says when it is ready and what it carries, drains at SIGTERM and leaves the host as it was', async () => {
    const before = await stateOf(world.client)
    await using program = await onInterface()
    await world.client.sh(`curl -s ${page}`)
    const script = `
import socket
s = socket.create_connection(('${addresses[4].origin}', 1003), 5)
s.sendall(b'2'); s.shutdown(socket.SHUT_WR)
print(s.makefile().read())`
    const client = world.client.spawn('python3', ['-c', script])
    await program.until((p) => events(p, 'session-start').length === 2, 'two sessions')
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
    expect((await client.exited).stdout).toBe('tick\ntick\ndone\n\n')
    const ends = parsed(program.stdout).filter(({ event }) => event === 'session-end')
    expect(ends).toMatchObject([{ end: { how: 'closed' } }, { end: { how: 'closed' } }])
    expect(await stateOf(world.client)).toEqual(before)
  })

  test('a second SIGTERM does not wait for connections to finish', async () => {
    await using program = await onInterface('--drain-timeout', '30s')
    const held = await holdDial(world.client, [addresses[4].origin, 7], { echo: 1000 })
    await program.until((p) => events(p, 'session-start').length === 1, 'a session')
    program.kill()
    await world.client.sh(`curl -s -m 3 ${page}`)
    expect(program.child.exitCode).toBe(null)
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
    expect((await held.release()).end).toBe('ECONNRESET')
  })

  test('a plugin that throws outside of its decisions ends it at once, however long connections may take', async () => {
    const late = `${directory}/late-on-interface.mjs`
    const source = `process.on('SIGUSR2', () => { throw new Error('too late') })\nexport default () => () => {}\n`
    writeFileSync(late, source)
    const before = await stateOf(world.client)
    await using program = await onInterface('--drain-timeout', '60s', '-p', late)
    const held = await holdDial(world.client, [addresses[4].origin, 7], { echo: 1000 })
    await program.until((p) => events(p, 'session-start').length === 1, 'a session')
    const start = performance.now()
    const { code, stderr } = await program.stop('SIGUSR2')
    expect(code).toBe(125)
    expect(performance.now() - start).toBeLessThan(5_000)
    expect(stderr).toContain('unexpected error, all connections are closed: too late (at ')
    expect((await held.release()).end).toBe('ECONNRESET')
    expect(await stateOf(world.client)).toEqual(before)
  })

  test('a SIGHUP before it is ready has files read again, and stops nothing', async () => {
    writeFileSync(`${directory}/hup.rules`, 'direct tcp dport 9\n')
    const args = ['--json', '-i', 'wan0', '--rules', `${directory}/hup.rules`]
    await using program = world.run(args, { input: '' })
    const listens = () =>
      /^SigCgt:\s+[0-9a-f]*[13579bdf]$/m.test(readFileSync(`/proc/${program.pid}/status`, 'utf8'))
    await program.until(listens, 'a handler of SIGHUP')
    program.kill('SIGHUP')
    await program.until((p) => events(p, 'reloaded').length > 0, 'a reload')
    expect(parsed(program.stdout).map(({ event }) => event)).toEqual(['ready', 'reloaded'])
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })

  test('refuses a second instance and names the first', async () => {
    await using program = await onInterface()
    const { code, stderr } = await run(world, ['-i', 'wan0'])
    const [ready] = program.events
    expect(code).toBe(125)
    expect(stderr).toMatch(new RegExp(`^tproxy-run: .*process ${ready.pid} .*wan0[^\\n]*\\n$`))
    await program.stop()
  })

  test('clean removes what SIGKILL left, which changed no traffic', async () => {
    const before = await stateOf(world.client)
    const program = await onInterface()
    await program.stop('SIGKILL')
    await world.client.sh(`curl -s -m 3 ${page}`)
    expect(await run(world, ['clean'])).toMatchObject({ code: 0, stderr: '' })
    expect(await stateOf(world.client)).toEqual(before)
  })

  test('needs only CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON', async () => {
    await world.client.sh('chmod 755 /run; chown 65534 /run/tproxy')
    const caps = '-all,+bpf,+net_admin,+perfmon'
    const some = [`--inh-caps=${caps}`, `--ambient-caps=${caps}`, `--bounding-set=${caps}`]
    const as = ['--reuid=65534', '--regid=65534', '--clear-groups', ...some]
    const before = await stateOf(world.client)
    const doctor = await world.client.run('setpriv', [...as, ...tproxyRun, 'doctor', '--json'])
    expect(doctor).toMatchObject({ code: 0, stderr: '' })
    // What only a command needs, and what only root can try.
    const worth = parsed(doctor.stdout).filter(({ status }) => status !== 'ok')
    expect(worth.map(({ name, status }) => [name, status])).toEqual([
      ['splice', 'warn'],
      ['cgroup v2', 'warn'],
    ])
    await using program = world.client.spawn('setpriv', [...as, ...tproxyRun, '--json', '-i', 'wan0'])
    await program.until((p) => p.events.some(({ event }) => event === 'ready'), 'a ready line')
    for (const family of [4, 6] as const)
      await world.client.sh(`curl -s -m 3 http://${addresses[family].url}`)
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
    expect(starts(program.stdout)).toHaveLength(2)
    const after = await stateOf(world.client)
    await world.client.sh('chown 0 /run/tproxy')
    expect(after).toEqual(before)
  })
})
