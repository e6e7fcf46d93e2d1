import { fileURLToPath } from 'node:url'
import type { Packet } from '@tproxy/core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Host } from './rig/host.ts'
import type { Dress } from './rig/packets.ts'

/** Rules in the kernel, judging packets that nobody sends. */
let host: Host
beforeAll(async () => {
  host = await Host.create('judge')
  await host.sh(
    'ip link add wan0 type veth peer name far0; ip link add wan1 type veth peer name far1; ip link set wan0 up',
  )
})
afterAll(() => host?.close())

async function judge(command: string, argument: string): Promise<unknown> {
  const program = fileURLToPath(new URL('./rig/judge.ts', import.meta.url))
  const args = ['--conditions=@tproxy/source', program, command, argument]
  const { code, stdout, stderr } = await host.run(process.execPath, args, { timeoutMs: 100_000 })
  if (code !== 0) throw new Error(stderr.slice(0, 4000))
  return JSON.parse(stdout)
}

interface Case {
  readonly packet: Packet
  readonly dress?: Dress
}

const ask = (rules: readonly string[], packets: readonly Case[]) =>
  judge('these', JSON.stringify({ rules, packets })) as Promise<{ result: string; rule?: number }[]>

const base = { mark: 0, dscp: 0, interface: 'wan0' } as const
const udp4: Packet = {
  ...base,
  ip: 4,
  protocol: 17,
  source: '192.0.2.1',
  destination: '203.0.113.1',
  sport: 4000,
  dport: 53,
}
const udp6: Packet = {
  ...base,
  ip: 6,
  protocol: 17,
  source: '2001:db8::1',
  destination: '2001:db8::53',
  sport: 4000,
  dport: 53,
}
const tcp4: Packet = { ...udp4, protocol: 6, dport: 443 }
const tcp6: Packet = { ...udp6, protocol: 6, dport: 443 }

test('the kernel says what the rules say, for random rules and packets of both families', {
  timeout: 120_000,
}, async () => {
  const { asked, matched } = (await judge('random', '120')) as { asked: number; matched: number }
  expect(asked).toBeGreaterThan(3000)
  expect(matched).toBeGreaterThan(asked / 4)
})

// 64 words of 64 rules are what one summary tells by the word.
test.each([70, 3000, 6000])('so it does for a list of %i', async (count) => {
  const { winners } = (await judge('long', `${count}`)) as { winners: number }
  expect(winners).toBeGreaterThan(count === 70 ? 8 : 80)
})

describe.each([
  ['IPv4', udp4, tcp4],
  ['IPv6', udp6, tcp6],
] as const)('over %s', (_, udp, tcp) => {
  test('later fragments follow the first', async () => {
    const first = { packet: udp, dress: { fragment: { id: 7, offset: 0, more: true } } }
    const later = { packet: udp, dress: { fragment: { id: 7, offset: 8, more: false } } }
    const other = { packet: { ...udp, dport: 80 }, dress: { fragment: { id: 8, offset: 0, more: true } } }
    const otherLater = { packet: udp, dress: { fragment: { id: 8, offset: 8, more: true } } }
    const stray = { packet: udp, dress: { fragment: { id: 9, offset: 8, more: false } } }
    expect(await ask(['drop udp dport 53'], [first, later, other, otherLater, stray])).toEqual([
      { result: 'shot', rule: 1 },
      { result: 'shot', rule: 1 },
      { result: 'next', rule: 0 },
      { result: 'next', rule: 0 },
      // Its first fragment was never seen: it could be one that is dropped.
      { result: 'shot' },
    ])
    expect(await ask(['direct udp dport 53'], [stray])).toEqual([{ result: 'next' }])
  })

  test('a packet that is cut short is no way around a drop', async () => {
    const whole = 14 + (udp.ip === 4 ? 20 : 40)
    // Shorter ones BPF_PROG_RUN refuses: rule-packets.test.ts sends them.
    const cuts = [whole, whole + 3].map((length) => ({ packet: udp, dress: { length } }))
    const flags = { packet: tcp, dress: { length: whole + 13 } }
    const dropped = await ask(['drop udp dport 1'], [...cuts, flags])
    expect(dropped).toEqual(dropped.map(() => ({ result: 'shot' })))
    // Where nothing is refused, nothing is held up.
    const passed = await ask(['direct udp dport 1'], [...cuts, flags])
    expect(passed).toEqual(passed.map(() => ({ result: 'next' })))
  })

  test('VLAN tags and options hide nothing, and more than there may be are dropped', async () => {
    const packets = [
      { packet: udp, dress: { tags: 1 } },
      { packet: udp, dress: { tags: 2 } },
      { packet: udp, dress: { extensions: 5 } },
      { packet: udp, dress: { tags: 2, extensions: 3 } },
      { packet: udp, dress: { tags: 3 } },
    ]
    expect(await ask(['drop udp dport 53'], packets)).toEqual([
      { result: 'shot', rule: 1 },
      { result: 'shot', rule: 1 },
      { result: 'shot', rule: 1 },
      { result: 'shot', rule: 1 },
      { result: 'shot' },
    ])
  })

  test('a refusal is answered, and not where it would answer an answer', async () => {
    const echo = udp.ip === 4 ? 1 : 58
    const { sport: _, dport: __, ...rest } = udp
    const answers = await ask(
      ['reject'],
      [
        { packet: tcp },
        { packet: udp },
        { packet: { ...rest, protocol: echo } },
        { packet: udp, dress: { fragment: { id: 3, offset: 8, more: false } } },
      ],
    )
    expect(answers.map(({ result }) => result)).toEqual(['redirect', 'redirect', 'redirect', 'shot'])
  })
})

test('an IPv6 packet with more extension headers than are legal is dropped where something is', async () => {
  const many = [{ packet: udp6, dress: { extensions: 8 } }]
  expect(await ask(['drop udp dport 1'], many)).toEqual([{ result: 'shot' }])
  expect(await ask(['direct udp dport 1'], many)).toEqual([{ result: 'next' }])
})

test('of verdicts to remember there is room for 16 384, and those of other rules do not count', async () => {
  expect(await judge('memories', '20000')).toEqual({
    held: expect.toSatisfy((held: number) => held > 10_000 && held <= 16_384),
    last: true,
    older: false,
    after: 0,
  })
})
