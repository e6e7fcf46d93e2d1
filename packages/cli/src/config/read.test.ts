import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { parseConfig, readConfig } from './read.ts'

function problemsOf(text: string): readonly string[] {
  const result = parseConfig(text, 'f.yaml')
  return 'problems' in result ? result.problems : []
}

describe('a configuration file', () => {
  it('has rules as text and as mappings, which mean the same', () => {
    const text = `
plugins: [socks=socks5://192.0.2.1:1080, { name: ./office.ts, argument: a=b, options: { ports: [1] } }]
interfaces: [eth0, eth1]
rules:
  - drop tcp dport 25
  - { action: drop, protocol: tcp, dport: 25 }
  - action: proxy
    to: [10.0.0.0/8, '2001:db8::/32']
    not: { uid: 1000 }
    mark: 0x10
    via: socks
    log: true
default-action: direct
default-verdict: drop
idle-timeout: 5m
drain-timeout: 2
table: 0x64
`
    expect(parseConfig(text, 'f.yaml')).toMatchObject({
      config: {
        plugins: [
          'socks=socks5://192.0.2.1:1080',
          { name: './office.ts', argument: 'a=b', options: { ports: [1] } },
        ],
        interfaces: ['eth0', 'eth1'],
        rules: [
          { action: 'drop', protocol: 'tcp', dport: 25 },
          { action: 'drop', protocol: 'tcp', dport: 25 },
          {
            action: 'proxy',
            to: ['10.0.0.0/8', '2001:db8::/32'],
            not: { uid: 1000 },
            mark: 16,
            via: 'socks',
            log: true,
          },
        ],
        'default-action': 'direct',
        'default-verdict': 'drop',
        'idle-timeout': '5m',
        'drain-timeout': 2,
        table: 100,
      },
    })
  })

  it('may have no rules', () => {
    expect(parseConfig('interfaces: auto', 'f.yaml')).toMatchObject({
      config: { interfaces: 'auto', rules: [] },
    })
  })

  it('may use anchors', () => {
    const text =
      'rules:\n  - { action: drop, to: &office [10.0.0.0/8] }\n  - { action: direct, from: *office }\n'
    expect(parseConfig(text, 'f.yaml')).toMatchObject({ config: { rules: [{}, { from: ['10.0.0.0/8'] }] } })
  })

  it('is as the example', () => {
    const example = fileURLToPath(new URL('../../../../examples/tproxy.yaml', import.meta.url))
    expect(readConfig(example)).toMatchObject({ config: { rules: expect.anything() } })
    expect(readFileSync(example, 'utf8')).toMatch(
      /^# yaml-language-server: \$schema=\.\.\/packages\/cli\/schema\/tproxy\.schema\.json$/m,
    )
  })

  it('that is missing is named', () => {
    expect(readConfig('/nonexistent')).toEqual({ problems: ['--config /nonexistent: no such file'] })
  })
})

const action = 'an action: proxy, direct, drop, reject, redirect:IFACE or redirect-into:IFACE'
const address = 'an address, prefix or range, such as 10.0.0.0/8 or 192.0.2.1-192.0.2.9'
const port = 'a port or range, such as 443 or 8000-8999'

/** Nine levels, each with ten of the one before. */
const bomb = `a0: &a0 [x]
${Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i}, `.repeat(10)}]`).join('\n')}`

describe('what is wrong is told with its place', () => {
  it.each<[string, string, string]>([
    ['no mapping', '- a', '1:1: expected a mapping, such as rules: [drop tcp dport 25], got a list'],
    ['nothing', '', '1:1: expected a mapping, such as rules: [drop tcp dport 25], got nothing'],
    ['a misspelt key', 'rule: []\n', '1:1: expected a known key, got "rule" (did you mean rules?)'],
    ['an unknown key', 'mark: 1\nquick: 1\n', '2:1: expected one of plugins, interfaces, rules,'],
    ['the wrong kind', 'rules: drop', '1:8: expected a list of rules, got "drop"'],
    ['an interface', 'interfaces: [eth0, 5]', '1:20: expected an interface, got 5'],
    ['auto beside others', 'interfaces: [auto, eth0]', '1:13: auto and all stand alone'],
    ['no interface', 'interfaces: []', '1:13: expected auto, all, or a list of interfaces, got a list'],
    [
      'a time',
      'idle-timeout: soon',
      '1:15: expected seconds, or with a unit: 500ms, 30s, 5m, 2h, got "soon"',
    ],
    ['too long a time', 'idle-timeout: 99999h', '1:15: expected at most 24 days, got "99999h"'],
    ['no time at all', 'connect-timeout: 0', '1:18: expected at least 1 ms, got 0'],
    ['a number', 'mark: x', '1:7: expected a number, such as 100 or 0x64, got "x"'],
    ['a negative number', 'table: -1', '1:8: expected a number, such as 100 or 0x64, got -1'],
    ['a verdict', 'default-verdict: reject', '1:18: expected direct or drop, got "reject"'],
    ['an action', 'default-action: deny', `1:17: expected ${action}, got "deny" (did you mean drop?)`],
    [
      'an action of a rule',
      'rules: [{ action: allow }]',
      `1:19: expected ${action}, got "allow" (did you mean direct?)`,
    ],
    [
      '--default',
      'default: drop',
      '1:1: expected a known key, got "default" (did you mean default-verdict or',
    ],
    ['a plugin', 'plugins:\n  - =x', '2:5: expected a plugin: NAME, NAME=ARGUMENT, or a mapping'],
    [
      'a plugin without name',
      'plugins:\n  - argument: x',
      '2:5: expected name: the name of a plugin, got none',
    ],
    [
      'a key of a plugin',
      'plugins:\n  - { name: x, argumen: y }',
      '2:16: expected a known key, got "argumen" (did you mean argument?)',
    ],
    [
      'a rule',
      'rules: [3]',
      '1:9: expected a rule, such as drop tcp dport 25, or a mapping with an action, got 3',
    ],
    ['an empty rule', 'rules:\n  -', '2:4: expected a rule, such as'],
    ['a word of a rule', 'rules:\n  - drop prot 25', '2:10: expected what to match, such as tcp,'],
    ['a word of a quoted rule', 'rules:\n  - "drop tcp dport x"', `2:21: expected ${port}, got "x"`],
    ['a word of an escaped rule', 'rules:\n  - "drop\\ttcp dport x"', `2:5: expected ${port}, got "x"`],
    ['the end of a rule', 'rules:\n  - drop to', `2:12: expected ${address}, got the end`],
    ['a rule without action', 'rules:\n  - to: 10.0.0.0/8', `2:5: expected action: ${action}, got none`],
    [
      'a field of a rule',
      'rules:\n  - { action: drop, too: x }',
      '2:21: expected a known key, got "too" (did you mean to?)',
    ],
    ['an address', 'rules:\n  - { action: drop, to: x }', `2:25: expected ${address}, got "x"`],
    [
      'one address of many',
      'rules:\n  - { action: drop, to: [10.0.0.1, x] }',
      `2:36: expected ${address}, got "x"`,
    ],
    ['a port', 'rules:\n  - action: drop\n    dport: 65536', `3:12: expected ${port}, got 65536`],
    ['a list of ports', 'rules:\n  - action: drop\n    dport: {}', `3:12: expected ${port}, got a mapping`],
    [
      'what must not match',
      'rules:\n  - { action: drop, not: { uid: true } }',
      '2:33: expected a user, such as 1000',
    ],
    [
      'a key there',
      'rules:\n  - { action: drop, not: { log: true } }',
      '2:28: expected one of protocol, ip,',
    ],
    ['the IP version', 'rules:\n  - { action: drop, ip: 5 }', '2:25: expected 4 or 6, got 5'],
    [
      'a contradiction',
      'rules:\n  - { action: proxy, protocol: udp }',
      '2:32: proxy works for TCP only, this rule says udp',
    ],
    [
      'one of a list that contradicts',
      'rules:\n  - { action: drop, gid: 0, protocol: [tcp, gre] }',
      '2:45: gid is known for TCP only, this rule says gre',
    ],
    ['log', 'rules:\n  - { action: drop, log: yes }', '2:26: expected true or false, got "yes"'],
    ['a key twice', 'mark: 1\nmark: 2\n', '2:1: Map keys must be unique'],
    ['the syntax', 'rules: [drop', '1:13: Flow sequence in block collection must be'],
    ['a tag', 'rules: !x []', '1:8: Unresolved tag: !x'],
    [
      'an alias of nothing',
      'mark: 1\nrules:\n  - *nope',
      '3:5: there is no &nope before (quote "*nope" if it is text)',
    ],
    ['more aliases than fit', bomb, '1:1: Excessive alias count'],
    [
      'what only looks like a name',
      'rules:\n  - { action: drop, dscp: toString }',
      '2:27: expected a DSCP, such as 46 or ef, got "toString"',
    ],
  ])('%s', (_, text, problem) => {
    expect(problemsOf(text)).toEqual([expect.stringContaining(`f.yaml:${problem}`)])
  })

  it.each([
    'plugins: socks5://me:S3cret@h',
    'plugins:\n  - =socks5://me:S3/cret@h',
    'plugins: [{ name: [socks5://me:S3cret@h] }]',
    'plugins: [{ name: socks, options: "socks5://me:S3 cret@h" }]',
    'plugins: [{ "socks5://me:S3/cret@h": 1 }]',
  ])('but nothing of what plugins are given: %s', (text) => {
    const problems = problemsOf(text)
    expect(problems.length).toBeGreaterThan(0)
    expect(problems.join('\n')).not.toMatch(/S3|cret/)
  })

  it('all at once, in the order of the file', () => {
    const text = 'mark: x\nrules:\n  - drop foo\n  - { action: drop, dport: x }\n  - drop dport\nzzz: 1\n'
    expect(problemsOf(text).map((problem) => problem.split(' ')[0])).toEqual([
      'f.yaml:1:7:',
      'f.yaml:3:10:',
      'f.yaml:4:28:',
      'f.yaml:5:15:',
      'f.yaml:6:1:',
    ])
  })
})
