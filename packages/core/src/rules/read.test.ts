import { describe, expect, test } from 'vitest'
import type { Rule } from './model.ts'
import { readRules } from './read.ts'

/** As somebody gives it whose editor does not check types. */
const read = (given: unknown) => () => readRules(given as Rule[])

describe('what a rule would not be asked for is refused, for without it the rule matches more', () => {
  test.each([
    [{ action: 'reject', protocol: 'tcp', dPort: 25 }, 'rule 2: unknown key dPort (did you mean dport?)'],
    [{ action: 'drop', dprt: 5 }, 'rule 2: unknown key dprt (did you mean dport?)'],
    [{ action: 'drop', country: 'x' }, 'rule 2: unknown key country (one of action, not, via, log, ip,'],
    [{ action: 'drop', not: { too: '10.0.0.1' } }, 'rule 2: not: unknown key too (did you mean to?)'],
    [{ action: 'drop', not: { log: true } }, 'rule 2: not: unknown key log'],
    [{ action: 'drop', not: 'tcp' }, 'rule 2: not: expected a mapping'],
    [null, 'rule 2: expected a text, or a mapping with an action'],
    [['drop'], 'rule 2: expected a text, or a mapping with an action'],
  ])('%j', (rule, message) => {
    expect(read(['drop udp', rule])).toThrow(message)
    expect(read(['drop udp', rule])).toThrow(expect.objectContaining({ code: 'E_RULE' }))
  })
})

test('all that a rule can be asked for is known', () => {
  const rule: Required<Rule> = {
    ...{ action: 'proxy', via: 'socks', log: true, protocol: 'tcp', ip: 4, from: '::/0', to: '::/0' },
    ...{ sport: 1, dport: 1, interface: 'lo', uid: 0, gid: 0, cgroup: '/', process: 'a', mark: 0, dscp: 0 },
    not: { dport: 80 },
  }
  expect(readRules([rule]).rules).toEqual([rule])
})

test('an action that is none is told with the one that was probably meant', () => {
  const message = 'rule 1: "deny" is not an action (did you mean drop?)'
  expect(read([{ action: 'deny' }])).toThrow(message)
  expect(() => readRules([], 'nothing' as 'drop')).toThrow(
    '"nothing" is not an action (such as direct or drop)',
  )
})

test('rules are a list', () => {
  expect(read('drop tcp')).toThrow("rules: expected a list (such as ['drop tcp dport 25'])")
})
