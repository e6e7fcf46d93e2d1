import { readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { useDirectory } from './rig/directory.ts'
import { firewall } from './rig/firewall.ts'
import { parsed, starts } from './rig/lines.ts'
import { onTerminal } from './rig/terminal.ts'
import { run } from './rig/tproxy-run.ts'
import { addresses, dialled, tproxyRun, World } from './rig/world.ts'

const page = `http://${addresses[4].url}`
const directory = useDirectory()

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

/** Whether a process does more than wait for its parent to ask how it ended. */
function isRunning(pid: number | string): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
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
    expect(await run(world, args)).toMatchObject({ code, signal: null, stdout: '' })
  })

  test.each(['SIGTERM', 'SIGKILL', 'SIGINT', 'SIGUSR1'])(
    'ended by %s, ends us by the same',
    async (signal) => {
      expect(await run(world, ['--', 'sh', '-c', `kill -${signal.slice(3)} $$`])).toMatchObject({
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
    const { code, stdout, stderr } = await run(world, [
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
    expect((await run(world, ['--', 'sh', '-c', script])).stdout).toMatch(/^(pipe|socket):\[\d+\]\n$/)
  })

  test('runs as the user who called sudo, with no capability', async () => {
    const script = 'id -u; id -g; grep -E "Cap(Inh|Prm|Eff|Amb)" /proc/self/status; echo ${SUDO_UID-none}'
    const { stdout } = await run(world, ['--', 'sh', '-c', script], { SUDO_UID: '65534', SUDO_GID: '65534' })
    expect(stdout.replaceAll('\t', ' ')).toBe(
      `65534\n65534\n${['Inh', 'Prm', 'Eff', 'Amb'].map((set) => `Cap${set}: 0000000000000000\n`).join('')}none\n`,
    )
  })

  test('has standard output for itself: what we say is on standard error, one JSON object a line', async () => {
    const { code, stdout, stderr } = await run(world, ['--json', '-v', '--', 'curl', '-s', `${page}/mine`])
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
    const { stdout, stderr } = await run(world, ['--json', '--', 'sh', '-c', script])
    expect(stdout).toContain('GET /background')
    expect(stdout).toContain('GET /orphan')
    expect(starts(stderr).map((event) => event.process.name)).toEqual(['curl', 'curl'])
  })

  test('is guarded by who outlives the signals of a service manager, and told of when lost', async () => {
    await using program = world.run(['--json', '--', 'sleep', '60'], { input: '' })
    await program.until(({ stderr }) => stderr.includes('"ready"'), 'the ready line')
    const guard = Number(await world.client.sh(`pgrep -P ${program.pid} -f cgroup.kill`))
    const signals = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGABRT', 'SIGUSR1'] as const
    for (const signal of signals) process.kill(guard, signal)
    await sleep(200)
    expect(isRunning(guard)).toBe(true)
    process.kill(guard, 'SIGKILL')
    await program.until(({ stderr }) => stderr.includes('who guards what is proxied has ended'), 'a warning')
    await program.stop()
  })

  test.each([true, false])(
    'leaves nothing to be sent past tproxy-run when that is killed; its program still ran: %s',
    async (ran) => {
      const port = ran ? 31_001 : 31_002
      const program = `
import socket, time
it = socket.create_connection(('203.0.113.10', 7), source_address=('', ${port}))
it.sendall(b'x')
it.recv(1)
print('answered', flush=True)
input()
it.sendall(b'secret' * 5000)
${ran ? '' : 'it.close()'}
print('sent', flush=True)
time.sleep(60)`
      await using run = world.run(['-q', '-p', dialled, '--', 'python3', '-c', program])
      await run.until(({ stdout }) => stdout.includes('answered'), 'an answer')
      // What it sends is not acknowledged from now on, and would be sent again.
      await using _left = await firewall(
        world.internet,
        'prerouting',
        `tcp sport ${port} counter`,
        'tcp dport 7 meta length > 100 drop',
      )
      run.child.stdin?.write('\n')
      await run.until(({ stdout }) => stdout.includes('sent'), 'what it sends')
      await sleep(50)
      run.kill('SIGKILL')
      await run.exited
      await sleep(1_500)
      expect(await world.internet.sh('/usr/sbin/nft list ruleset')).toContain('counter packets 0 ')
    },
  )

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
    const { code, stdout } = await run(world, [
      '--',
      'sh',
      '-c',
      'setsid sleep 300 >/dev/null 2>&1 & echo $!',
    ])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^\d+\n$/)
    expect(isRunning(stdout.trim())).toBe(false)
  })

  test('two at once do not see each other', async () => {
    const results = await Promise.all(
      ['one', 'two'].map((path) =>
        run(world, ['--json', '--', 'sh', '-c', `sleep .3; curl -s ${page}/${path}`]),
      ),
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
    const { code, stdout, stderr } = await run(world, ['--json', '--plugin', slow, '--', ...inner])
    expect(code).toBe(0)
    expect(stdout).toContain('GET /nested')
    const ends = parsed(stderr).filter(({ event }) => event === 'session-end')
    const reasons = Object.fromEntries(ends.map(({ process, notSpliced }) => [process.name, notSpliced]))
    expect(reasons).toEqual({ curl: 'another transparent proxy has it', 'tproxy-run': undefined })
    // Nor is one left alone that the outer one would not see then.
    expect(ends).toHaveLength(2)
  })
})
