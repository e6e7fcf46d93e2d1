import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Dialled, dial, holdDial } from './rig/client.ts'
import type { Program } from './rig/host.ts'
import { onTerminal, screen, tell } from './rig/terminal.ts'
import { addresses, tproxyRun, World } from './rig/world.ts'

const { origin } = addresses[4]
const top = [...tproxyRun, 'top', '--interval', '200ms']

let world: World
let proxy: Program
beforeAll(async () => {
  world = await World.create()
  proxy = world.run(
    ['--json', '-i', 'wan0', '--rule', 'proxy tcp dport 7', '--metrics', '198.51.100.2:9464'],
    { input: '' },
  )
  await proxy.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line')
})
afterAll(() => world?.close())

const lines = async (...more: readonly string[]) => {
  const { code, stdout, stderr } = await world.client.run(top[0] ?? '', [...top.slice(1), ...more])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
}

const events = (program: Program, name: string) => program.events.filter(({ event }) => event === name).length

const ends = (id: number) => proxy.events.find((it) => it.event === 'session-end' && it.id === id)?.end

/** A connection that lasts for as long as the test wants. */
const hold = async (options: Parameters<typeof holdDial>[2] = {}): Promise<() => Promise<Dialled>> =>
  (await holdDial(world.client, [origin, 7], { shutdown: true, ...options })).release

test('what is asked goes by a socket of ours alone', async () => {
  const sockets = await world.client.sh("find /run/tproxy -name '*.sock' -printf '%m %u '")
  expect(sockets).toBe('600 root ')
})

describe('top', () => {
  test('without a terminal, prints what it sees as lines of JSON, with rates from the second on', async () => {
    const talk = `exec 3<>/dev/tcp/${origin}/7; while echo hello >&3; do sleep 0.02; done`
    await using talker = world.client.spawn('bash', ['-c', talk], { input: '' })
    await proxy.until((p) => p.events.some((it) => it.process?.name === 'bash'), 'a session')
    const release = await hold()
    const [first, second, ...rest] = await lines('--count', '2')
    expect(rest).toEqual([])
    expect(first).toMatchObject({ event: 'sessions', total: 2 })
    expect(first.sessions[0].rate).toBeUndefined()
    expect(second.sessions[0]).toMatchObject({
      destination: { address: origin, port: 7 },
      process: { name: 'bash', pid: expect.any(Number) },
      interface: 'wan0',
      verdict: 'direct',
      carried: 'splice',
    })
    expect(second.sessions[0].rate.received).toBeGreaterThan(50)
    const received = (line: typeof first) =>
      line.sessions.find(({ id }: { id: number }) => id === second.sessions[0].id).bytes.received
    expect(received(second)).toBeGreaterThan(received(first))
    expect(second.sessions[1]).toMatchObject({ rule: 1, bytes: { sent: 0 }, rate: { sent: 0, received: 0 } })
    await release()
    await talker.stop('SIGKILL')
    await proxy.until((p) => events(p, 'session-end') === events(p, 'session-start'), 'the ends')
  })

  test('on a terminal, is a table that fits, closes the selected one, and leaves the terminal as it was', async () => {
    const [kept, closed] = [await hold(), await hold()]
    await using terminal = onTerminal(world.client, top)
    const shows = (text: RegExp) => terminal.until((it) => text.test(screen(it).join('\n')), String(text))
    await shows(/2 connections/)
    await shows(/^client\[\d.* 203\.0\.113\.10:7 +direct +splice +.* \d+s *$/m)
    expect(screen(terminal)).toHaveLength(24)
    for (const line of screen(terminal)) expect(line.length).toBeLessThanOrEqual(80)

    tell(terminal, { size: [10, 120] })
    await terminal.until((it) => screen(it).length === 10, 'ten lines')
    expect(Math.max(...screen(terminal).map(({ length }) => length))).toBe(120)

    tell(terminal, { keys: '\u001b[C\u001b[C\u001b[Cr' })
    await shows(/AGE▴/)
    tell(terminal, { keys: '\u001b[B' })
    await shows(/^\d+ {2}client\[\d+\] → 203\.0\.113\.10:7 {2}direct {2}rule 1$/m)
    const id = Number(/^(\d+) {2}client/m.exec(screen(terminal).join('\n'))?.[1])
    tell(terminal, { keys: 'kn' })
    await shows(/2 connections/)
    expect(ends(id)).toBeUndefined()
    tell(terminal, { keys: 'k' })
    await shows(new RegExp(`close ${id}, with a reset to both sides\\? y/n`))
    tell(terminal, { keys: 'y' })
    await shows(new RegExp(`${id} ended: aborted`))
    expect(await closed()).toMatchObject({ end: 'ECONNRESET' })
    expect(ends(id)).toEqual({ how: 'aborted' })

    tell(terminal, { keys: 'q' })
    await terminal.exited
    expect(terminal.events).toEqual([{ code: 0, canonical: true, echo: true }])
    // The screen as it was before, with a cursor, and nothing after it.
    expect(terminal.stdout.split('\u001b[?25h\u001b[?1049l')[1]?.trim()).toMatch(/^\{.*\}$/)
    expect(await kept()).toMatchObject({ end: 'fin' })
  })

  test.each(['SIGTERM', 'SIGINT', 'SIGHUP'])('ended by %s, leaves the terminal as it was', async (signal) => {
    await using terminal = onTerminal(world.client, top)
    await terminal.until((it) => screen(it).length === 24, 'a screen')
    await world.client.sh(`kill -${signal.slice(3)} $(pgrep -P ${terminal.pid})`)
    await terminal.exited
    expect(terminal.events).toMatchObject([{ canonical: true, echo: true }])
  })

  test('ends with its terminal', async () => {
    await using terminal = onTerminal(world.client, top)
    await terminal.until((it) => screen(it).length === 24, 'a screen')
    tell(terminal, { hangUp: true })
    const { stderr } = await terminal.exited
    expect(stderr).toBe('')
    expect(terminal.events).toEqual([{ code: -1 }])
  })

  test('says what cannot be', async () => {
    const wrong = async (...args: readonly string[]) =>
      (await world.client.run(top[0] ?? '', [...top.slice(1), ...args])).stderr
    expect(await wrong('--sort', 'dwon')).toContain('--sort is "dwon" (did you mean down?)')
    expect(await wrong('--interval', '10ms')).toContain('--interval is "10ms"')
    expect(await wrong('--count', '0')).toContain('--count is "0"')
  })
})

/** Samples by their name with labels, as the text format 0.0.4 has them; throws for a line that is not of it. */
function samples(text: string): Map<string, number> {
  const found = new Map<string, number>()
  for (const line of text.trimEnd().split('\n')) {
    if (/^# (HELP|TYPE) [a-z_]+ .+$/.test(line) || line === '') continue
    const [, name, value] =
      /^([a-z_]+(?:\{(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+\})?) (\d+(?:\.\d+)?(?:e-?\d+)?)$/.exec(line) ??
      []
    if (name === undefined || found.has(name)) throw new Error(`not of the format: ${line}`)
    found.set(name, Number(value))
  }
  return found
}

describe('metrics', () => {
  const scrape = async (...how: readonly string[]) =>
    samples(await world.client.sh(`curl -sSf -m 5 ${how.join(' ')}`))

  test('count what happens, and a scrape is not intercepted', async () => {
    const url = 'http://198.51.100.2:9464/metrics'
    const before = await scrape(url)
    const { port } = await dial(world.client, [origin, 7], { echo: 100_000 })
    const ended = (it: Program) => it.events.find((e) => e.event === 'session-end' && e.source.port === port)
    await proxy.until(ended, 'the end')
    const after = await scrape(url)
    const grew = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0)
    const { carried, end } = ended(proxy)
    expect(grew('tproxy_sessions_total{verdict="direct",plugin=""}')).toBe(1)
    const labels = `how="${end.how}",verdict="direct",plugin="",carried="${carried}"`
    expect(grew(`tproxy_sessions_ended_total{${labels}}`)).toBe(1)
    for (const direction of ['sent', 'received'])
      expect(grew(`tproxy_session_bytes_total{direction="${direction}",carried="${carried}"}`)).toBe(100_000)
    expect(grew('tproxy_decision_seconds_count')).toBe(1)
    // The handshake's; how much more a rule sees depends on when the kernel takes over.
    expect(grew('tproxy_rule_packets_total{rule="1"}')).toBeGreaterThanOrEqual(2)
    for (const reason of ['held', 'released'])
      expect(grew(`tproxy_kernel_total{program="steering",reason="${reason}"}`)).toBe(1)
    expect(grew('tproxy_kernel_total{program="steering",reason="passedDecided"}')).toBeGreaterThan(10)
    expect(after.get('tproxy_warnings_total')).toBe(0)
    expect(after.get('tproxy_sessions{carried="splice"}')).toBe(0)
    expect(proxy.events.filter(({ destination }) => destination?.port === 9464)).toEqual([])
  })

  test('of a command are served at a socket of ours alone, also after a kill left it there', async () => {
    const path = '/run/metrics.sock'
    const script = `curl -sSf --unix-socket ${path} http://metrics/metrics; stat -c '# TYPE mode %a' ${path}`
    for (const end of ['; kill -9 $PPID; sleep 5', '']) {
      await using program = world.run(['--metrics', `unix:${path}`, '--', 'sh', '-c', script + end], {
        input: '',
      })
      const { stdout } = await program.exited
      expect(stdout).toContain('mode 600\n')
      expect(samples(stdout).get('tproxy_sessions{carried="relay"}')).toBe(0)
    }
    expect(await world.client.sh(`ls ${path} 2>&1 || true`)).toContain('No such file')
  })

  test('where nobody can listen, it does not start', async () => {
    await using program = world.run(['--metrics', '192.0.2.77:9464', '--', 'true'], { input: '' })
    expect(await program.exited).toMatchObject({
      code: 125,
      stderr: expect.stringContaining('serve metrics at 192.0.2.77:9464: '),
    })
  })
})
