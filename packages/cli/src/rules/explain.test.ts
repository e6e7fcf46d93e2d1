import { compileRules, type Packet, type Remembered } from '@tproxy/core'
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
  expect(judge(compileRules([]), packet)).toMatchObject({ rule: 0, action: 'direct', text: 'default proxy' })
})

it('names of a rule for ports the port alone, where none is given', () => {
  const { dport: _, ...without } = packet
  expect(explain(['drop udp dport 25'], without)[2]).toBe('     1  drop udp dport 25  dport (not given)')
  expect(explain(['drop tcp dport 25'], without)[2]).toBe(
    '     1  drop tcp dport 25  protocol, dport (not given)',
  )
})

it('does not say that a process is known of what it is not', () => {
  expect(explain(['drop process curl'], { ...packet, process: 'curl' })[0]).toContain('no rule matches')
})

it('says which remembered verdict then decides: the one about the port, for this user and rule', () => {
  const until = new Date(0)
  const memory = { address: '203.0.113.1', uid: 5, rule: 1, until, hits: 0 }
  const memories: Remembered[] = [
    { ...memory, verdict: 'drop', port: undefined },
    { ...memory, verdict: 'direct', port: 80 },
    { ...memory, verdict: 'drop', port: 443, rule: 2 },
  ]
  const said = (given: Partial<Packet>, rules = ['proxy dport 0-442', 'proxy']) => {
    const asked: Packet = { ...packet, protocol: 6, uid: 5, ...given }
    return describeVerdict(judge(compileRules(rules), asked, memories), asked)
      .find((line) => line.includes('remembers'))
      ?.replace(/.*: /, '')
  }
  expect(said({ dport: 80 })).toBe('direct')
  expect(said({ dport: 81 })).toBe('drop')
  expect(said({ dport: 443 })).toBe('drop')
  expect(said({ dport: 444 })).toBeUndefined()
  expect(said({ dport: 80, uid: 6 })).toBeUndefined()
  expect(said({ dport: 80, protocol: 17 })).toBeUndefined()
  expect(said({ dport: 80 }, ['direct'])).toBeUndefined()
})

it('shows of many rules those against which least speaks', () => {
  const far = Array.from({ length: 50 }, () => 'drop tcp to 10.0.0.0/8 sport 7')
  const lines = explain([...far, 'drop udp dport 53 to 10.0.0.0/8', ...far])
  expect(lines).toHaveLength(12)
  expect(lines[1]).toBe('what speaks against the nearest of the 101 rules:')
  expect(lines.at(-1)).toMatch(/^ +51 {2}drop udp to 10\.0\.0\.0\/8 dport 53 +to$/)
})
