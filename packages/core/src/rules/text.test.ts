import { describe, expect, test } from 'vitest'
import { formatRule, parseRule, parseRuleList } from './text.ts'

describe('a line becomes a rule', () => {
  test.each([
    ['drop tcp dport 25', { action: 'drop', protocol: 'tcp', dport: 25 }],
    ['direct to 10.0.0.0/8 192.168.0.0/16', { action: 'direct', to: ['10.0.0.0/8', '192.168.0.0/16'] }],
    [
      'proxy tcp dport 80,443 uid 1000 via socks',
      { action: 'proxy', protocol: 'tcp', dport: [80, 443], uid: 1000, via: 'socks' },
    ],
    [
      'proxy dport 80,443, 8000-8999 tcp to 2001:db8::/32',
      { action: 'proxy', dport: [80, 443, '8000-8999'], protocol: 'tcp', to: '2001:db8::/32' },
    ],
    [
      'reject udp tcp not to 10.1.0.0/16',
      { action: 'reject', protocol: ['udp', 'tcp'], not: { to: '10.1.0.0/16' } },
    ],
    ['redirect:eth1 ip6 proto 47 log', { action: 'redirect:eth1', ip: 6, protocol: '47', log: true }],
    ['redirect-into:ifb0 mark 0x10 dscp ef', { action: 'redirect-into:ifb0', mark: '0x10', dscp: 'ef' }],
    [
      'drop process "my app" cgroup ssh.service',
      { action: 'drop', process: 'my app', cgroup: 'ssh.service' },
    ],
    ['drop not udp not ip4', { action: 'drop', not: { protocol: 'udp', ip: 4 } }],
  ])('%s', (line, rule) => {
    expect(parseRule(line)).toEqual(rule)
    expect(parseRule(formatRule(parseRule(line)))).toEqual(rule)
  })
})

describe('an error says where, and what was expected', () => {
  test.each([
    ['', 'at column 1: expected an action: proxy, direct'],
    ['deny tcp', 'at column 1: "deny": expected an action'],
    ['drop to', 'at column 8: expected an address'],
    ['drop to dport 5', 'at column 9: "dport": expected an address'],
    ['drop to 10.0.0.0/33', 'at column 9: "10.0.0.0/33": expected an address'],
    ['drop to 10.0.0', 'at column 9: "10.0.0"'],
    ['drop dport 65536', 'at column 12: "65536": expected a port or range'],
    ['drop dport 9-8', 'at column 12: "9-8"'],
    ['drop dprt 9', 'at column 6: "dprt": expected dport, perhaps'],
    ['drop to !10.0.0.0/8', '(write: not to 10.0.0.0/8)'],
    ['drop to 10.0.0.1 to 10.0.0.2', 'at column 18: "to": expected it once'],
    ['proxy udp', 'tcp with proxy, which carries TCP only'],
    ['drop via socks', 'proxy with via'],
    ['drop udp process curl', 'of other packets it is not known'],
  ])('%s', (line, message) => {
    expect(() => parseRule(line)).toThrow(message)
  })
})

test('a file has a rule a line, comments, and what applies otherwise', () => {
  expect(parseRuleList('# mail\ndrop tcp dport 25\n\ndefault direct # rest\r\n', 'f')).toEqual({
    rules: [{ action: 'drop', protocol: 'tcp', dport: 25 }],
    default: 'direct',
  })
  expect(() => parseRuleList('drop dport 1\n  drop foo', 'my.rules')).toThrow(/^my\.rules:2:8: "foo"/)
})
