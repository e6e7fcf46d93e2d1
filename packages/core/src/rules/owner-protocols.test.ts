import { expect, test } from 'vitest'
import { matchRules, type Packet } from './reference.ts'
import { compileRules } from './tables.ts'
import { parseRule } from './text.ts'

const sent = (protocol: number): Packet => ({
  ...{
    ip: 4,
    protocol,
    source: '192.0.2.1',
    destination: '203.0.113.1',
    sport: 4000,
    dport: 53,
    mark: 0,
    dscp: 0,
  },
  ...{ uid: 1000, gid: 1000, process: 'curl' },
})

/** Which protocols a rule matches, by the tables of the kernel and by the rules as one reads them. */
function protocolsOf(text: string): (number | undefined)[][] {
  const list = { rules: [parseRule(text)], default: 'direct' } as const
  const judges = [compileRules(list.rules).explain, (packet: Packet) => matchRules(list, packet)]
  return judges.map((judge) => [6, 17, 132].filter((protocol) => judge(sent(protocol)).rule === 1))
}

test.each([
  'process curl',
  'gid 1000',
  'not process ssh',
  'not gid 5',
  'uid 1000 gid 1000',
  'dport 53 process curl',
])('the kernel knows of TCP only what %s asks for', (criteria) => {
  expect(protocolsOf(`drop ${criteria}`)).toEqual([[6], [6]])
})

test.each(['uid 1000', 'not uid 5', 'dport 53'])('it knows of each socket what %s asks for', (criteria) => {
  expect(protocolsOf(`drop ${criteria}`)).toEqual([
    [6, 17, 132],
    [6, 17, 132],
  ])
})

test('what the default proxy leaves alone is explained as what becomes of it', () => {
  const { explain } = compileRules(['drop udp dport 54'])
  expect([6, 17].map((protocol) => explain(sent(protocol)).action)).toEqual(['proxy', 'direct'])
  expect(matchRules({ rules: [], default: 'proxy' }, sent(17)).action).toBe('direct')
})

test('without a port, what speaks against a rule is the port or the protocol, not both', () => {
  const { dport: _, ...packet } = sent(6)
  const { against } = compileRules([
    'drop tcp dport 25',
    'drop udp',
    'drop udp dport 25',
    'drop sport 1',
  ]).explain(packet)
  expect(against.map(({ fields }) => fields)).toEqual([
    ['dport'],
    ['protocol'],
    ['protocol', 'dport'],
    ['sport'],
  ])
})
