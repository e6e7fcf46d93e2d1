import { compileRules, type Packet } from '@tproxy/core'
import { expect, it } from 'vitest'
import { describeVerdict } from './explain.ts'
import { judge } from './state.ts'

const packet: Packet = {
  ip: 4,
  protocol: 17,
  source: '192.0.2.1',
  destination: '203.0.113.1',
  dport: 53,
  mark: 0,
  dscp: 0,
}
const explain = (rules: readonly string[], given = packet) =>
  describeVerdict(judge(compileRules(rules), given), given)

it('names the rule that wins, and what speaks against those before it', () => {
  expect(explain(['drop tcp', 'drop udp uid 5', 'reject udp dport 53', 'drop'])).toEqual([
    'rule 3 matches first: reject udp dport 53',
    'what speaks against the rules before it:',
    '     1  drop tcp        protocol or dport',
    '     2  drop udp uid 5  uid (not given)',
  ])
})

it('says what the default does to other protocols', () => {
  expect(explain([])).toEqual(['no rule matches: default proxy, which leaves udp alone'])
  expect(explain([], { ...packet, protocol: 6 })).toEqual(['no rule matches: default proxy'])
})

it('shows of many rules those against which least speaks', () => {
  const far = Array.from({ length: 50 }, () => 'drop tcp to 10.0.0.0/8 sport 7')
  const lines = explain([...far, 'drop udp dport 53 to 10.0.0.0/8', ...far])
  expect(lines).toHaveLength(12)
  expect(lines[1]).toBe('what speaks against the nearest of the 101 rules:')
  expect(lines.at(-1)).toMatch(/^ +51 {2}drop udp to 10\.0\.0\.0\/8 dport 53 +to$/)
})
