import { describe, expect, test } from 'vitest'
import { formatRule } from './format.ts'
import { parseRule, parseRuleList, readRuleLines } from './text.ts'

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
    [
      'drop not tcp,udp dport 5 icmp',
      { action: 'drop', protocol: 'icmp', dport: 5, not: { protocol: ['tcp', 'udp'] } },
    ],
    ['drop not udp ipv6', { action: 'drop', ip: 6, not: { protocol: 'udp' } }],
    ['drop proto ipv6 ipv4', { action: 'drop', protocol: 'ipv6', ip: 4 }],
    ['drop proto udp ipv6', { action: 'drop', protocol: 'udp', ip: 6 }],
    ['drop proto udp,"ipv6" ipv4', { action: 'drop', protocol: ['udp', 'ipv6'], ip: 4 }],
    ['drop not proto gre ipv6', { action: 'drop', ip: 6, not: { protocol: 'gre' } }],
    ['drop process "a #b" # "c', { action: 'drop', process: 'a #b' }],
    [
      'drop process "say ""hi""" "!x",tcp dport 5',
      { action: 'drop', process: ['say "hi"', '!x'], protocol: 'tcp', dport: 5 },
    ],
    ['drop process "tcp", "iface" udplite#', { action: 'drop', process: ['tcp', 'iface', 'udplite#'] }],
    ['drop tcp # dport 25', { action: 'drop', protocol: 'tcp' }],
  ])('%s', (line, rule) => {
    expect(parseRule(line)).toEqual(rule)
    expect(parseRule(formatRule(parseRule(line)))).toEqual(rule)
  })
})

describe('an error says where, and what was expected', () => {
  test.each([
    ['', 'at column 1: expected an action: proxy, direct'],
    ['drop tcp dport', 'at column 15: expected a port or range, such as 443 or 8000-8999, got the end'],
    ['deny tcp', 'at column 1: expected an action'],
    ['drop to', 'at column 8: expected an address'],
    ['drop to dport 5', 'at column 9: expected an address'],
    ['drop to 10.0.0.0/33', 'at column 9: expected an address'],
    ['drop to 10.0.0', 'such as 10.0.0.0/8 or 192.0.2.1-192.0.2.9, got "10.0.0"'],
    ['drop dport 65536', 'at column 12: expected a port or range'],
    ['drop dport 9-8', 'got "9-8"'],
    [
      'drop dprt 9',
      'at column 6: expected what to match, such as tcp, to, dport, uid, not, via or log, got "dprt" (did you mean dport?)',
    ],
    ['drop to !10.0.0.0/8', '(write: not to 10.0.0.0/8)'],
    ['drop to 10.0.0.1 to 10.0.0.2', 'at column 18: expected it once'],
    ['proxy udp dport 53', 'at column 7: proxy works for TCP only, this rule says udp'],
    ['proxy dport 53 proto tcp,17', 'at column 26: proxy works for TCP only, this rule says 17'],
    ['proxy not udp dport 1 tcp sctp', 'at column 27: proxy works for TCP only, this rule says sctp'],
    ['drop via socks', 'at column 1: via is for proxy, which alone asks a plugin; this rule says drop'],
    ['drop udp process curl', 'at column 6: process is known for TCP only, this rule says udp'],
    ['drop tcp,gre not gid 0', 'at column 10: gid is known for TCP only, this rule says gre'],
    ['drop process "my app', 'at column 14: expected quotes around the whole word, such as "my app"'],
    ['drop process "a"b dport 5', 'at column 14: expected quotes around the whole word'],
    ['drop process a"b"', '(a quote inside is written twice)'],
    ['drop "not" tcp', 'at column 6: expected a keyword, got "not"'],
    ['drop interface ""', 'at column 16: expected an interface'],
    ['drop toString', 'at column 6: expected what to match'],
    ['drop dscp toString', 'at column 11: expected a DSCP, such as 46 or ef, got "toString"'],
    ['drop dport ssh', / got "ssh" \(names of services are not known; write (22|the number)\)$/],
    ['drop to example.com', 'got "example.com" (rules take addresses; names need a plugin: docs/names.md)'],
    ['drop from 10.0.0.1 localhost', 'got "localhost" (rules take addresses; names need'],
    ['drop proto constructor', 'at column 12: expected a protocol, such as gre or 47, got "constructor"'],
  ])('%s', (line, message) => {
    expect(() => parseRule(line)).toThrow(message)
  })
})

test.each([
  ['deny tcp', 'drop'],
  ['block', 'drop'],
  ['accept', 'direct'],
  ['allow', 'direct'],
  ['prxy', 'proxy'],
  ['default deny', 'drop'],
  ['redirect', 'redirect:IFACE'],
  ['drop user 0', 'uid'],
  ['drop tcp port 25', 'dport'],
  ['drop src 10.0.0.1', 'from'],
])('what %s probably means is told: %s', (line, meant) => {
  expect(readRuleLines(line).problems[0]?.error.hint).toBe(`did you mean ${meant}?`)
})

test('a file has a rule a line, comments, and what applies otherwise', () => {
  expect(parseRuleList('# mail\ndrop tcp dport 25\n\ndefault direct # rest\r\n', 'f')).toEqual({
    rules: [{ action: 'drop', protocol: 'tcp', dport: 25 }],
    default: 'direct',
  })
  expect(() => parseRuleList('drop dport 1\n  drop foo', 'my.rules')).toThrow(/^my\.rules:2:8: .*"foo"/)
})

test('in a file, too, quotes hold what looks like a comment, and a comment what looks like a quote', () => {
  expect(readRuleLines('drop process "a #b" # don"t\n#"\ndrop process "a #b\n')).toMatchObject({
    rules: [{ action: 'drop', process: 'a #b' }],
    problems: [
      {
        line: 3,
        column: 14,
        error: { message: expect.stringContaining('expected quotes around the whole') },
      },
    ],
  })
})

test('all lines that do not parse are told at once', () => {
  const text = 'drop dport 1\ndrop foo\ndefault maybe\nallow\ndefault drop\n default direct'
  const { rules, problems, ...otherwise } = readRuleLines(text)
  expect(rules).toHaveLength(1)
  expect(otherwise).toEqual({ lines: [1], default: 'drop', defaultLine: 5 })
  expect(
    problems.map(({ line, column, error }) => `${line}:${column}: ${error.message.slice(0, 16)}`),
  ).toEqual([
    '2:6: expected what to',
    '3:9: expected an acti',
    '4:1: expected an acti',
    '6:2: expected default',
  ])
  expect(problems.at(-1)?.error.message).toBe('expected default once, got "default" (see line 5)')
})
