import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { holdDial } from './rig/client.ts'
import { cgroupMount, type Program, type Result } from './rig/host.ts'
import { stateOf } from './rig/state.ts'
import { onTerminal } from './rig/terminal.ts'
import { addresses, tproxyRun, World } from './rig/world.ts'

const page = `http://${addresses[4].url}`
const directory = mkdtempSync(`${tmpdir()}/rig-run-`)

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(async () => {
  rmSync(directory, { recursive: true })
  await world?.close()
})

async function run(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Result> {
  await using program = world.run(args, { input: '', env })
  return await program.exited
}

// biome-ignore lint: a test knows what was printed
function parsed(text: string): any[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
}

const starts = (text: string) => parsed(text).filter(({ event }) => event === 'session-start')

/** Whether a process does more than wait for its parent to ask how it ended. */
function isRunning(pid: number | string): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

async function onInterface(...more: string[]): Promise<Program> {
  const program = world.run(['--json', '-i', 'wan0', ...more], { input: '' })
  await program.until((p) => p.events.some(({ event }) => event === 'ready'), 'a ready line')
  return program
}

describe('the command', () => {
  test.each([
    [0, ['true']],
    [42, ['sh', '-c', 'exit 42']],
    [125, ['--no-such-option']],
    [126, ['/etc/passwd']],
    [127, ['no-such-command']],
  ])('exit code %i', async (code, command) => {
    const args = code === 125 ? command : ['--', ...command]
    expect(await run(args)).toMatchObject({ code, signal: null, stdout: '' })
  })

  test.each(['SIGTERM', 'SIGKILL', 'SIGINT', 'SIGUSR1'])(
    'ended by %s, ends us by the same',
    async (signal) => {
      expect(await run(['--', 'sh', '-c', `kill -${signal.slice(3)} $$`])).toMatchObject({
        code: null,
        signal,
      })
    },
  )

  test('gets the SIGTERM that we get', async () => {
    const script = 'trap "echo got; exit 7" TERM; echo up; while :; do sleep .05; done'
    await using program = world.run(['--', 'sh', '-c', script], { input: '' })
    await program.until(({ stdout }) => stdout.includes('up'), 'the command to be up')
    expect(await program.stop()).toMatchObject({ code: 7, stdout: 'up\ngot\n', stderr: '' })
  })

  test('ignores what our caller ignored, and so do we', async () => {
    const script = 'sed -n "s/^SigIgn:\\s*//p" /proc/self/status; env | grep TPROXY; sleep 1; echo over'
    const ignoring = `trap '' HUP INT; exec "$@"`
    // The script at the root, which looks before Node forgets.
    const ours = new URL('../tproxy-run', import.meta.url).pathname
    const words = ['-c', ignoring, '-', ours, '-q', '--', 'sh', '-c', script]
    await using program = world.client.spawn('sh', words, { input: '' })
    await program.until(({ stdout }) => stdout.includes('\n'), 'what it ignores')
    for (const signal of ['SIGHUP', 'SIGINT'] as const) program.kill(signal)
    const { code, stdout } = await program.exited
    expect(code).toBe(0)
    const [mask = '', ...rest] = stdout.split('\n')
    // SIGHUP is 1, SIGINT 2.
    expect(Number.parseInt(mask, 16) & 0b11).toBe(0b11)
    expect(rest).toEqual(['over', ''])
  })

  test('does not run when a ^C came before it', async () => {
    const interrupting = `${directory}/interrupting.mjs`
    const upstreams = "get: () => (process.kill(process.pid, 'SIGINT'), [])"
    writeFileSync(
      interrupting,
      `export default () => Object.defineProperty(() => {}, 'upstreams', { ${upstreams} })`,
    )
    const command = [...tproxyRun, '--plugin', interrupting, '--', 'echo', 'it runs']
    await using terminal = onTerminal(world.client, command)
    expect((await terminal.exited).stdout).toMatch(/^\s+\{"code": -2,/)
  })

  test('has our standard input and output, byte for byte', async () => {
    const file = `${directory}/random`
    await world.client.sh(
      `head -c 1000000 /dev/urandom >${file}; ${tproxyRun.join(' ')} -- cat <${file} | cmp - ${file}`,
    )
  })

  test('has pipes that block, whatever a plugin does in our process', async () => {
    const talkative = `${directory}/talkative.mjs`
    writeFileSync(
      talkative,
      `import { PassThrough } from 'node:stream'
export default () => () => {
  console.log('to standard output')
  console.error('to standard error')
  new PassThrough().pipe(new PassThrough())
}`,
    )
    const flags = 'cat /proc/self/fdinfo/1 /proc/self/fdinfo/2 | sed -n "s/^flags:\\s*//p"'
    const { code, stdout, stderr } = await run([
      '-p',
      talkative,
      '--',
      'sh',
      '-c',
      `curl -s ${page}; ${flags}`,
    ])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^(GET \/ from .*|to standard output\n)+/)
    expect(stderr).toContain('to standard error\n')
    // O_NONBLOCK.
    for (const [octal] of stdout.matchAll(/^0\d+$/gm)) expect(Number.parseInt(octal, 8) & 0o4000).toBe(0)
    expect(stdout.match(/^0\d+$/gm)).toHaveLength(2)
  })

  test('has no other open file', async () => {
    const script =
      'for fd in $(seq 3 60); do [ ! -e /proc/$$/fd/$fd ] || echo $fd; done; readlink /proc/$$/fd/2'
    expect((await run(['--', 'sh', '-c', script])).stdout).toMatch(/^(pipe|socket):\[\d+\]\n$/)
  })

  test('runs as the user who called sudo, with no capability', async () => {
    const script = 'id -u; id -g; grep -E "Cap(Inh|Prm|Eff|Amb)" /proc/self/status; echo ${SUDO_UID-none}'
    const { stdout } = await run(['--', 'sh', '-c', script], { SUDO_UID: '65534', SUDO_GID: '65534' })
    expect(stdout.replaceAll('\t', ' ')).toBe(
      `65534\n65534\n${['Inh', 'Prm', 'Eff', 'Amb'].map((set) => `Cap${set}: 0000000000000000\n`).join('')}none\n`,
    )
  })

  test('has standard output for itself: what we say is on standard error, one JSON object a line', async () => {
    const { code, stdout, stderr } = await run(['--json', '-v', '--', 'curl', '-s', `${page}/mine`])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^GET \/mine from [0-9a-f:.]+\n$/)
    expect(parsed(stderr).map(({ event }) => event)).toEqual([
      'ready',
      'session-start',
      'session-end',
      'exit',
    ])
  })

  test('is intercepted with all that it starts', async () => {
    const curl = (path: string) => `curl -s ${page}/${path}`
    const script = `${curl('background')} & setsid sh -c '(sleep .2; ${curl('orphan')}) & exit 0'; wait; sleep .6`
    const { stdout, stderr } = await run(['--json', '--', 'sh', '-c', script])
    expect(stdout).toContain('GET /background')
    expect(stdout).toContain('GET /orphan')
    expect(starts(stderr).map((event) => event.process.name)).toEqual(['curl', 'curl'])
  })

  test('is guarded by who outlives the signals of a service manager, and told of when lost', async () => {
    await using program = world.run(['--json', '--', 'sleep', '60'], { input: '' })
    await program.until(({ stderr }) => stderr.includes('"ready"'), 'the ready line')
    const guard = Number(await world.client.sh(`pgrep -P ${program.pid} -f cgroup.kill`))
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(guard, signal)
    await sleep(200)
    expect(isRunning(guard)).toBe(true)
    process.kill(guard, 'SIGKILL')
    await program.until(({ stderr }) => stderr.includes('who guards the command has ended'), 'a warning')
    await program.stop()
  })

  test('starts where a process with its own pid was killed before', async () => {
    const forge = `
      directory=/run/tproxy/$(stat -Lc %i /proc/self/ns/net)
      mkdir -p $directory
      own=$(findmnt -no TARGET -t cgroup2)$(sed -n 's/^0:://p' /proc/self/cgroup)
      printf '{"pid":%s,"startTime":"1","interfaces":[],"keeps":false,"cgroup":"%s"}' $$ "$own/tproxy-$$" >$directory/7.json
      exec "$@"`
    const { code, stdout, stderr } = await world.client.run('sh', [
      '-c',
      forge,
      '-',
      ...tproxyRun,
      '-q',
      '--',
      'echo',
      'it runs',
    ])
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'it runs\n', stderr: '' })
  })

  test('takes with it what it left running', async () => {
    const { code, stdout } = await run(['--', 'sh', '-c', 'setsid sleep 300 >/dev/null 2>&1 & echo $!'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^\d+\n$/)
    expect(isRunning(stdout.trim())).toBe(false)
  })

  test('two at once do not see each other', async () => {
    const results = await Promise.all(
      ['one', 'two'].map((path) => run(['--json', '--', 'sh', '-c', `sleep .3; curl -s ${page}/${path}`])),
    )
    for (const { code, stderr } of results) {
      expect(code).toBe(0)
      expect(starts(stderr)).toHaveLength(1)
    }
  })

  test('may be tproxy-run again, whose connections are carried on by the kernel in one place only', async () => {
    // The inner one could splice its connection before the outer one knows what becomes of it.
    const slow = `${directory}/slow.mjs`
    writeFileSync(slow, 'export default () => () => new Promise((resolve) => setTimeout(resolve, 300))')
    const curl = ['curl', '-sS', '-m', '5', `${page}/nested`]
    const inner = [...tproxyRun, '--json', '--', ...curl]
    const { code, stdout, stderr } = await run(['--json', '--plugin', slow, '--', ...inner])
    expect(code).toBe(0)
    expect(stdout).toContain('GET /nested')
    const ends = parsed(stderr).filter(({ event }) => event === 'session-end')
    const reasons = Object.fromEntries(ends.map(({ process, notSpliced }) => [process.name, notSpliced]))
    expect(reasons).toEqual({ curl: 'another transparent proxy has it', 'tproxy-run': undefined })
  })
})

describe('what cannot be done is told in one line, and nothing has changed', () => {
  const bad = `${directory}/bad`
  const throwing = `${directory}/throwing.mjs`
  writeFileSync(bad, '# rules\ndirect dport 22\n\n  drop prot 25\n')
  writeFileSync(throwing, `throw new Error('broken at load')\n`)

  async function expectRefusal(result: Promise<Result>, says: RegExp): Promise<void> {
    const { code, stdout, stderr } = await result
    expect(stderr).toMatch(/^tproxy-run: [^\n]+\n$/)
    expect(stderr).toMatch(says)
    expect({ code, stdout }).toEqual({ code: 125, stdout: '' })
  }

  async function unchanged(work: () => Promise<void>): Promise<void> {
    const before = await stateOf(world.client)
    await work()
    expect(await stateOf(world.client)).toEqual(before)
  }

  test.each<[string, string[], RegExp]>([
    ['an unknown option', ['--plugim', 'socks'], /unknown option --plugim.*--plugin/],
    ['an unknown plugin', ['-p', 'sokcs'], /no plugin sokcs/],
    ['a bad URL', ['-p', 'socks=socks5://rig:S3cret@host:99999'], /plugin socks/],
    ['a missing interface', ['-i', 'wan9'], /no interface wan9.*wan0/],
    ['a bad rule', ['--rule', 'drop prot 25'], /column \d+|:\d+/],
    ['a bad line of a rules file', ['--rules', bad], /bad:4:/],
    ['a missing rules file', ['--rules', `${directory}/none`], /no such file/],
    ['a plugin that throws while it loads', ['-p', throwing], /throwing\.mjs.*broken at load/],
    ['a plugin file that is not there', ['-p', './nowhere.ts'], /nowhere\.ts/],
    ['what a command cannot have', ['--keep'], /--keep with a command \(.*--interface\)/],
    ['an unknown user', ['-u', 'no-such-user'], /no such user/],
  ])('%s', async (_, args, says) => {
    await unchanged(() => expectRefusal(run([...args, '--', 'true']), says))
  })

  test('and for programs by its code, with what it says and the remedy', async () => {
    const { stderr } = await run(['--json', '-p', 'sokcs=S3cret', '--', 'true'])
    const [event = '', text] = stderr.split('\n')
    expect(JSON.parse(event)).toEqual({
      event: 'exit',
      time: expect.any(String),
      code: 125,
      error: {
        code: 'E_PLUGIN',
        message: 'there is no plugin sokcs',
        hint: expect.stringContaining('socks and http are built in'),
      },
    })
    expect(text).toContain('tproxy-run: there is no plugin sokcs (socks and')
    for (const command of ['status', 'reload'])
      expect(parsed((await run([command, '--json'])).stdout)).toEqual([
        {
          event: 'error',
          code: 'E_OPTION',
          message: 'no tproxy-run runs in this network namespace',
          hint: 'or it is not yours: try sudo',
        },
      ])
  })

  test('a plugin that throws outside of its decisions, with its place', async () => {
    const late = `${directory}/late.mjs`
    writeFileSync(
      late,
      `export default () => () => {}\nsetTimeout(() => { throw new Error('too late') }, 2000)\n`,
    )
    await unchanged(() =>
      expectRefusal(run(['-p', late, '--', 'sleep', '60']), /too late \(at .*late\.mjs:2:26\)/),
    )
  })

  test('a plugin that throws while the command is on its way into its cgroup', async () => {
    const just = `${directory}/just.mjs`
    writeFileSync(
      just,
      `import childProcess from 'node:child_process'
import { syncBuiltinESMExports } from 'node:module'
const { spawn } = childProcess
childProcess.spawn = (file, args, options) => {
  if (!args.includes('60')) return spawn(file, args, options)
  queueMicrotask(() => { throw new Error('just now') })
  return spawn('/bin/sh', ['-c', 'sleep 0.2; exec "$@"', 'sh', file, ...args], options)
}
syncBuiltinESMExports()
export default () => () => {}\n`,
    )
    await unchanged(() =>
      expectRefusal(run(['-p', just, '--', 'sleep', '60']), /just now \(at .*just\.mjs:6/),
    )
  })

  test('no privileges', async () => {
    const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups']
    await unchanged(() =>
      expectRefusal(world.client.run('setpriv', [...nobody, ...tproxyRun, '--', 'true']), /CAP_BPF.*sudo/),
    )
  })

  test('no cgroup v2', async () => {
    const without = `umount -n -l ${cgroupMount} && exec "$@"`
    await unchanged(() =>
      expectRefusal(
        world.client.run('unshare', ['-m', 'sh', '-c', without, 'sh', ...tproxyRun, '--', 'true']),
        /cgroup v2 is not mounted/,
      ),
    )
  })
})

describe('doctor', () => {
  test('finds nothing missing, for people and for programs', async () => {
    expect(await run(['doctor'])).toMatchObject({ code: 0, stderr: '' })
    const { code, stdout } = await run(['doctor', '--json'])
    expect(code).toBe(0)
    expect(parsed(stdout).length).toBeGreaterThan(5)
    for (const check of parsed(stdout)) expect(check).toMatchObject({ event: 'check', status: 'ok' })
  })

  test('tries splicing; what it finds is what the next start goes by, until the kernel or the programs are others', async () => {
    const end = async () => {
      const { stderr } = await run(['--json', '--', 'curl', '-s', '-m', '3', page])
      return parsed(stderr).find(({ event }) => event === 'session-end')
    }
    const record = '/run/tproxy/trial.json'
    const found = JSON.parse(await world.client.sh(`cat ${record}`))
    expect(found).not.toHaveProperty('problem')
    const say = (outcome: object) => world.client.sh(`echo '${JSON.stringify(outcome)}' >${record}`)

    await say({ ...found, problem: 'bytes are lost' })
    expect(await end()).toMatchObject({ carried: 'relay', notSpliced: 'bytes are lost' })
    const checks = parsed((await run(['doctor', '--json'])).stdout)
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
    const { code, stdout } = await run(['doctor', '--json', '--config', config])
    expect(code).toBe(1)
    const lacking = parsed(stdout).filter(({ status }) => status !== 'ok')
    expect(lacking).toMatchObject([{ name: 'interfaces', detail: 'there is no interface wan7' }])
    const none = await run(['doctor', '--config', `${directory}/none.yaml`])
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
    expect(await run(['doctor'], profiled)).toMatchObject({ code: 0, stderr: '' })
  })

  test('names the chain of a firewall that is in the way, and its remedy works', async () => {
    await world.client.sh(`nft 'table inet wall {
      chain inward { type filter hook input priority 0; policy drop; ct state established,related accept; }
    }'`)
    try {
      const blocked = await run(['--', 'curl', '-s', '-m', '1', page])
      expect(blocked.code).toBe(28)
      const checks = parsed((await run(['doctor', '--json'])).stdout).filter(({ status }) => status !== 'ok')
      expect(checks).toMatchObject([{ detail: expect.stringContaining('inet wall inward') }])
      await world.client.sh(checks[0].remedy)
      expect((await run(['--', 'curl', '-s', '-m', '3', page])).code).toBe(0)
    } finally {
      await world.client.sh('nft delete table inet wall')
    }
  })
})

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
    await program.until((p) => starts(p.stdout).length === 2, 'two sessions')
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
    expect((await client.exited).stdout).toBe('tick\ntick\ndone\n\n')
    const ends = parsed(program.stdout).filter(({ event }) => event === 'session-end')
    expect(ends).toMatchObject([{ end: { how: 'closed' } }, { end: { how: 'closed' } }])
    expect(await stateOf(world.client)).toEqual(before)
  })

  test('a second SIGTERM does not wait for connections to finish', async () => {
    await using program = await onInterface('--drain-timeout', '30s')
    const held = await holdDial(world.client, [addresses[4].origin, 7], { echo: 1000 })
    await program.until((p) => starts(p.stdout).length === 1, 'a session')
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
    await program.until((p) => starts(p.stdout).length === 1, 'a session')
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
    await program.until((p) => parsed(p.stdout).some(({ event }) => event === 'reloaded'), 'a reload')
    expect(parsed(program.stdout).map(({ event }) => event)).toEqual(['ready', 'reloaded'])
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })

  test('refuses a second instance and names the first', async () => {
    await using program = await onInterface()
    const { code, stderr } = await run(['-i', 'wan0'])
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
    expect(await run(['clean'])).toMatchObject({ code: 0, stderr: '' })
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
