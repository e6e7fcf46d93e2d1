import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import type { Program } from './rig/host.ts'
import { microsocks } from './rig/servers.ts'
import { addresses, dialled, tellRules, tproxyRun, World } from './rig/world.ts'

let world: World
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  world = stack.use(await World.create())
  stack.use(await microsocks(world.internet, '198.51.100.1', 1080))
})
afterAll(() => stack.disposeAsync())

const [command, ...first] = tproxyRun

async function proxy(...args: readonly string[]): Promise<Program> {
  const program = world.run(['--json', '-i', 'wan0', ...args], { input: '' })
  await program.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line')
  return program
}

/** A trace that is under way. */
async function tracing(...args: readonly string[]): Promise<Program> {
  const trace = world.client.spawn(command, [...first, 'trace', '--json', ...args], { input: '' })
  await trace.until(({ events }) => events.length > 0, 'its beginning')
  return trace
}

const steps = (trace: Program) => trace.events.filter(({ event }) => event === 'step')

/** What happened to a packet, as `hook decision reason…`, in order. */
const path = (trace: Program, port: number, flags: string) =>
  steps(trace)
    .filter(({ source, destination }) => source.port === port || destination.port === port)
    .filter((step) => step.flags.join() === flags)
    .map(({ hook, decision, reasons, rule }) =>
      [hook, decision, ...reasons, ...(rule === undefined ? [] : [`rule ${rule}`])].join(' '),
    )

const ended = (trace: Program) =>
  trace.until(({ events }) => events.some(({ event }) => event === 'end'), 'an end')

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]

  test('tells the way of a connection, hook by hook, until the kernel carries it', async () => {
    await using _proxy = await proxy('-p', dialled, '--rule', 'direct dport 22', '--rule', 'proxy tcp')
    await using trace = await tracing(origin)
    expect(trace.events[0]).toMatchObject({ event: 'tracing', address: origin, port: 0 })
    const { port } = await dial(world.client, [origin, 7], { echo: 1000 })
    await ended(trace)
    expect(path(trace, port, 'SYN')).toEqual([
      'splice_egress next',
      'wan_egress redirected held rule 2',
      'lo_ingress dropped droppedHeld',
      'lo_ingress next assigned listenerFound',
    ])
    expect(path(trace, port, 'SYN,ACK')).toEqual([
      'splice_loopback next windowClosed',
      'lo_egress redirected returned',
      'splice_ingress next',
    ])
    const own = steps(trace).find(({ flags, source }) => flags.join() === 'SYN' && source.port !== port)
    expect(path(trace, own.source.port, 'SYN')).toEqual([
      'splice_egress next',
      'wan_egress next passedExempt',
    ])
    // The origin's answer arrives for our socket and leaves for the program, as from where it dialled.
    const back = steps(trace).find(({ hook, became }) => hook === 'splice_ingress' && became !== undefined)
    expect(back).toMatchObject({
      interface: 'wan0',
      source: { address: origin, port: 7 },
      destination: { port: own.source.port },
      became: { source: { address: origin, port: 7 }, destination: { port } },
      reasons: expect.arrayContaining(['carried']),
    })
    const fin = path(trace, port, 'FIN,ACK')
    expect(fin[0]).toBe('splice_egress sent carried rule 2')
    const told = trace.events.filter(({ event }) => event === 'session' || event === 'end')
    expect(told).toMatchObject([
      { event: 'session', session: { verdict: 'via', rule: 2, process: { name: 'client' } } },
      { event: 'end', how: 'closed', session: { carried: 'splice', bytes: { sent: 1000, received: 1000 } } },
    ])
    // All of it, and in order.
    const all = steps(trace)
    expect(all.map(({ number }) => number)).toEqual(all.map((_, index) => index + 1))
    const times = trace.events.slice(1).map(({ timeMs }) => timeMs)
    expect(times).toEqual(times.toSorted((a, b) => a - b))
  })

  test('tells that a connection is held, and then left alone', async () => {
    await using _proxy = await proxy()
    await using trace = await tracing(origin)
    const { port } = await dial(world.client, [origin, 7], { echo: 1000 })
    await ended(trace)
    expect(path(trace, port, 'SYN')).toEqual([
      'splice_egress next',
      'wan_egress redirected held rule 0',
      'lo_ingress dropped droppedHeld',
      'splice_egress next',
      'wan_egress next released',
    ])
    expect(path(trace, port, 'SYN,ACK')).toEqual(['splice_ingress next'])
    expect(path(trace, port, 'FIN,ACK')[1]).toBe('wan_egress next passedDecided rule 0')
    expect(trace.events.filter(({ event }) => event === 'end')).toMatchObject([
      { how: 'closed', session: { carried: 'splice', bytes: { sent: 1000, received: 1000 } } },
    ])
  })

  test('tells which rule decided, also what is no TCP, and what a rejected packet became', async () => {
    const rules = ['reject tcp dport 2222', 'drop udp dport 9', 'direct']
    await using _proxy = await proxy(...rules.flatMap((rule) => ['--rule', rule]))
    await using trace = await tracing(origin)
    const direct = await dial(world.client, [origin, 22], { read: 13 })
    const rejected = await dial(world.client, [origin, 2222], { read: 13 })
    expect(rejected.end).toBe('ECONNREFUSED')
    await world.client.sh(`echo x >/dev/udp/${origin}/9`)
    const datagram = () => steps(trace).filter(({ protocol }) => protocol === 17)
    await trace.until(() => datagram().some(({ hook }) => hook === 'wan_egress'), 'a datagram')
    expect(path(trace, direct.port, 'SYN')).toEqual([
      'splice_egress next',
      'wan_egress next passedRule rule 3',
    ])
    const refusal = steps(trace).find(({ reasons }) => reasons.includes('rejected'))
    expect(refusal).toMatchObject({
      hook: 'wan_egress',
      decision: 'redirected',
      rule: 1,
      flags: ['SYN'],
      became: { source: { address: origin, port: 2222 }, flags: ['RST', 'ACK'] },
    })
    expect(datagram().map(({ decision, rule }) => [decision, rule])).toEqual([
      ['next', undefined],
      ['dropped', 2],
    ])
  })
})

test('tells of a destination that is reached by an upstream, whose packets have other addresses', async () => {
  const { origin } = addresses[4]
  await using _proxy = await proxy('--plugin', 'socks=socks5://198.51.100.1:1080')
  await using trace = await tracing(`${origin}:7`)
  await dial(world.client, [origin, 22], { read: 13 })
  const { port } = await dial(world.client, [origin, 7], { echo: 1000 })
  await ended(trace)
  expect(trace.events.find(({ event }) => event === 'session')).toMatchObject({
    session: { verdict: 'via', plugin: 'socks', destination: { port: 7 } },
  })
  expect(steps(trace).filter(({ hook }) => hook === 'splice_ingress')).toContainEqual(
    expect.objectContaining({
      source: expect.objectContaining({ address: '198.51.100.1', port: 1080 }),
      became: expect.objectContaining({
        source: expect.objectContaining({ address: origin, port: 7 }),
        destination: expect.objectContaining({ port }),
      }),
    }),
  )
  const ports = steps(trace).flatMap((step) => [step.source.port, step.destination.port])
  expect(ports).not.toContain(22)
})

test.each([
  ['the same next hop, is routed now and then', '', 'sent'],
  ['another next hop, is routed each time', '02:00:00:00:00:99', 'redirected'],
])('what is spliced to an upstream with %s', async (_, mac, usually) => {
  const { origin } = addresses[4]
  // Nobody is there: what reaches the upstream took another way than the destination's.
  const [hop, route] = ['198.51.100.9', `${origin} via 198.51.100.9 dev wan0`]
  if (mac !== '')
    await world.client.sh(`ip neigh replace ${hop} lladdr ${mac} dev wan0; ip route add ${route}`)
  try {
    await using _proxy = await proxy('--plugin', 'socks=socks5://198.51.100.1:1080')
    await using trace = await tracing(`${origin}:7`)
    const held = await holdDial(world.client, [origin, 7], { echo: 300_000 })
    // All of it is carried.
    await sleep(500)
    const echoed = await held.release()
    expect(echoed).toMatchObject({ received: 300_000, equal: true })
    await ended(trace)
    const carried = steps(trace).filter(
      ({ hook, reasons, source }) =>
        hook === 'splice_egress' && source.port === echoed.port && reasons.includes('carried'),
    )
    const decisions = carried.map(({ decision }) => decision)
    expect(decisions.length).toBeGreaterThan(5)
    expect(decisions[0]).toBe('redirected')
    // Each five seconds it is routed to see where it goes now.
    const others = decisions.slice(1).filter((decision) => decision !== usually)
    expect(others.length).toBeLessThanOrEqual(usually === 'sent' ? 2 : 0)
  } finally {
    if (mac !== '') await world.client.sh(`ip route del ${route}; ip neigh del ${hop} dev wan0`)
  }
})

test('is for people, too; one at a time, ends with --count, and with what it watches', async () => {
  const { origin } = addresses[4]
  await using running = await proxy()
  await using trace = world.client.spawn(command, [...first, 'trace', '--count', '3', origin], { input: '' })
  await trace.until(({ stdout }) => stdout !== '', 'its beginning')
  const second = await world.client.run(command, [...first, 'trace', origin])
  expect(second).toMatchObject({ code: 125, stdout: '' })
  expect(second.stderr).toMatch(/^tproxy-run: process \d+: trace: another trace is under way/)
  const { port } = await dial(world.client, [origin, 22], { read: 13 })
  expect(await trace.exited).toMatchObject({ code: 0, stderr: '' })
  const [head, ...lines] = trace.stdout.trimEnd().split('\n')
  expect(head).toBe(`tracing ${origin} in process ${running.pid}; ^C ends it`)
  const packet = `198.51.100.2:${port} > ${origin}:22 SYN, 74 B`
  expect(lines.map((line) => line.replace(/^\d\d:\d\d:\d\d\.\d{6} +/, ''))).toEqual([
    `wan0 splice_egress    on          ${packet}  not for it`,
    `wan0 wan_egress       redirected  ${packet}  held, default`,
    `lo lo_ingress         dropped     ${packet}  dropped held`,
  ])
  await using last = await tracing(origin)
  await running.stop()
  expect(await last.exited).toMatchObject({ code: 125, stderr: expect.stringMatching(/has ended\n$/) })
})

test('ends within what it calls, as take(1) does', async () => {
  const { origin } = addresses[4]
  await using embedded = await world.proxy({ interfaces: ['wan0'] })
  for (let round = 0; round < 3; round++) {
    await tellRules(embedded, { trace: origin })
    await dial(world.client, [origin, 7], { echo: 1_000_000 })
    await embedded.until(
      ({ events }) => events.filter(({ event }) => event === 'traced').length > round,
      'a step',
    )
  }
  expect(await embedded.stop()).toMatchObject({ code: 0 })
})

test('ends with who reads it', async () => {
  const { origin } = addresses[4]
  await using _proxy = await proxy()
  const words = [command, ...first, 'trace', origin].map((word) => `'${word}'`).join(' ')
  const fetch = `for i in 1 2 3 4 5; do sleep 0.5; curl -s -o /dev/null http://${addresses[4].url}/; done`
  const { code, stdout } = await world.client.run('bash', ['-c', `(${fetch}) & ${words} | head -2`])
  expect({ code, lines: stdout.split('\n').length }).toEqual({ code: 0, lines: 3 })
})

test.each([
  [[], /trace needs one destination/],
  [['example.org'], /"example.org" is no address/],
  [['192.0.2.1', '--count', '0'], /--count is "0"/],
])('refuses %j', async (args, says) => {
  const { code, stderr } = await world.client.run(command, [...first, 'trace', ...args])
  expect({ code, stderr }).toEqual({ code: 125, stderr: expect.stringMatching(says) })
})
