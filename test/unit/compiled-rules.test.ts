import { formatRule, type Packet, parseRule, protocols, type Rule } from '@tproxy/core'
import {
  compile,
  explain,
  lookUp,
  matchRules,
  type Names,
  resolveList,
  shadowed,
  toQuestion,
} from '@tproxy/core/testing'
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { anyPacket, anyRule, listOf } from '../local/rules.ts'

const cgroups = ['/', '/a', '/a/b', '/a/b/c', '/d', '/d/e']
const names: Names = {
  interface: (name) =>
    name.startsWith('wan')
      ? { ifindex: Number(name.slice(3)) + 2, mac: undefined, gateway: undefined }
      : undefined,
  user: () => undefined,
  group: () => undefined,
  cgroup(path) {
    const above = cgroups.filter((other) => other === '/' || path === other || path.startsWith(`${other}/`))
    return above.map((other) => BigInt(cgroups.indexOf(other) + 1))
  },
}

test('a rule is read as it was written', () => {
  fc.assert(
    fc.property(anyRule, (rule) => {
      const again = parseRule(formatRule(rule))
      expect(formatRule(again)).toBe(formatRule(rule))
      const list = { rules: [rule, again], default: 'proxy' } as const
      const resolved = resolveList(list, names).rules
      expect(resolved[1]).toEqual(resolved[0])
    }),
    { numRuns: 500 },
  )
})

/** Of what means something in a rule, and anything else. */
const anyName = fc.oneof(
  fc.constantFrom('tcp', 'ipv6', 'ip6', 'iface', 'protocol', 'not', 'log', 'toString', '#x', 'a #b', '!x'),
  fc.string({ unit: fc.constantFrom('a', ' ', '"', ',', '#', '!', '\n', 'é'), minLength: 1, maxLength: 7 }),
)
const oneOrMore = (name: fc.Arbitrary<string>) =>
  fc.oneof(name, fc.uniqueArray(name, { minLength: 2, maxLength: 4 }))

test('a rule is read as it was written, whatever names hold', () => {
  const names = { interface: oneOrMore(anyName), process: oneOrMore(anyName), cgroup: oneOrMore(anyName) }
  const protocol = oneOrMore(fc.constantFrom(...Object.keys(protocols)))
  const rules = fc.record(
    {
      action: fc.constant('proxy'),
      ip: fc.constantFrom(4, 6),
      ...names,
      via: anyName,
      not: fc.record(names),
    },
    { requiredKeys: ['action'] },
  )
  const others = fc.record(
    {
      action: fc.constantFrom('drop', 'redirect:a,"b', 'redirect:#'),
      protocol,
      not: fc.record({ protocol }),
    },
    { requiredKeys: ['action'] },
  )
  fc.assert(
    fc.property(fc.oneof(rules, others), (rule) => {
      expect(parseRule(formatRule(rule as Rule))).toEqual(rule)
    }),
    { numRuns: 2000 },
  )
})

test('compiled rules say what the rules say, one after the other', { timeout: 30_000 }, () => {
  fc.assert(
    fc.property(listOf(anyRule), fc.array(anyPacket, { minLength: 20, maxLength: 20 }), (rules, packets) => {
      const list = { rules, default: 'proxy' } as const
      const compiled = compile(resolveList(list, names), 1)
      for (const packet of packets) {
        const { rule, matching, against } = lookUp(compiled, toQuestion(packet, names))
        expect({ packet, rule }).toEqual({ packet, rule: matchRules(list, packet).rule })
        // Nothing speaks against those that match, and something against all others.
        const numbers = rules.map((_, index) => index + 1)
        expect(numbers.filter((number) => against(number).length === 0)).toEqual(matching)
      }
    }),
    { numRuns: 150 },
  )
})

test('what is not known of a packet matches neither way', { timeout: 30_000 }, () => {
  const optional = ['sport', 'dport', 'interface', 'uid', 'gid', 'process', 'cgroups'] as const
  const partly = fc.tuple(anyPacket, fc.subarray([...optional])).map(([packet, unknown]) => {
    const left = Object.entries(packet).filter(([field]) => !unknown.some((each) => each === field))
    return Object.fromEntries(left) as unknown as Packet
  })
  fc.assert(
    fc.property(listOf(anyRule), fc.array(partly, { minLength: 20, maxLength: 20 }), (rules, packets) => {
      const list = { rules, default: 'proxy' } as const
      const compiled = compile(resolveList(list, names), 1)
      for (const packet of packets) {
        const { rule, against } = explain(compiled, list, packet, names)
        expect({ packet, rule }).toEqual({ packet, rule: matchRules(list, packet).rule })
        const speaking = against.filter(({ fields }) => fields.length > 0)
        expect(speaking).toHaveLength(rule === 0 ? rules.length : rule - 1)
      }
    }),
    { numRuns: 100 },
  )
})

test('of a process, the kernel knows 15 bytes of its name', () => {
  const list = { rules: [parseRule('drop process chromium-browse')], default: 'proxy' } as const
  const compiled = compile(resolveList(list, names), 1)
  const rest = {
    ip: 4,
    protocol: 6,
    source: '192.0.2.1',
    destination: '192.0.2.2',
    mark: 0,
    dscp: 0,
  } as const
  expect(explain(compiled, list, { ...rest, process: 'chromium-browser-long' }, names).rule).toBe(1)
  expect(explain(compiled, list, { ...rest, process: 'chromium-brow' }, names).rule).toBe(0)
})

test('a shadowed rule never wins', { timeout: 30_000 }, () => {
  let found = 0
  fc.assert(
    fc.property(listOf(anyRule), fc.array(anyPacket, { minLength: 20, maxLength: 20 }), (rules, packets) => {
      const list = { rules, default: 'proxy' } as const
      const resolved = resolveList(list, names)
      const hidden = shadowed(resolved.rules, compile(resolved, 1))
      found += hidden.length
      const winners = new Set(packets.map((packet) => matchRules(list, packet).rule))
      for (const { rule, by } of hidden) {
        expect(by).toBeLessThan(rule)
        expect(winners).not.toContain(rule)
      }
    }),
    { numRuns: 100 },
  )
  expect(found).toBeGreaterThan(50)
})

test('a rule is shadowed by one that covers it, and not by one that does not', () => {
  const cgroup = (path: string) => (path.startsWith('/') ? names.cgroup(path) : undefined)
  const hidden = (...lines: string[]) => {
    const resolved = resolveList({ rules: lines.map(parseRule), default: 'proxy' }, { ...names, cgroup })
    return shadowed(resolved.rules, compile(resolved, 1))
  }
  expect(hidden('drop to 10.0.0.0/8', 'direct to 10.1.0.0/16')).toEqual([{ rule: 2, by: 1 }])
  expect(hidden('drop tcp', 'direct udp', 'proxy dport 80')).toEqual([{ rule: 3, by: 1 }])
  expect(hidden('drop to 10.0.0.0/8 not tcp', 'direct to 10.1.0.0/16')).toEqual([])
  expect(hidden('drop uid 0', 'drop dport 1')).toEqual([])
  expect(hidden('drop', 'direct')).toEqual([{ rule: 2, by: 1 }])
  // Neither of these is there.
  expect(hidden('drop interface aaa0', 'direct interface bbb0')).toEqual([])
  expect(hidden('drop interface aaa0,bbb0', 'direct interface bbb0 tcp')).toEqual([{ rule: 2, by: 1 }])
  // No unit is.
  expect(hidden('drop udp not cgroup a.service', 'direct udp cgroup a.service')).toEqual([])
  expect(hidden('drop cgroup a.service', 'direct cgroup b.service')).toEqual([])
  expect(hidden('drop cgroup a.service', 'direct cgroup a.service udp')).toEqual([{ rule: 2, by: 1 }])
  expect(hidden('drop not interface aaa0', 'direct interface wan0')).toEqual([{ rule: 2, by: 1 }])
})

test('10 000 rules compile within a second', () => {
  const lines = Array.from({ length: 10_000 }, (_, i) =>
    i % 2 === 0
      ? `drop tcp to 10.${i % 256}.${(i >> 6) & 255}.${(i * 7) & 255} dport ${i % 3000}`
      : `direct to 2001:db8:${(i % 4096).toString(16)}:${((i * 31) & 0xffff).toString(16)}::/64`,
  )
  const list = { rules: lines.map(parseRule), default: 'proxy' } as const
  const started = performance.now()
  const compiled = compile(resolveList(list, names), 1)
  expect(performance.now() - started).toBeLessThan(1000)
  expect(compiled.length).toBeLessThan(64 * 2 ** 20)
})

test.each([
  ['hosts and ports', (i: number) => `drop tcp to 10.${i >> 8}.${i & 255}.7 dport ${i % 3000}`],
  ['users', (i: number) => `drop tcp dport 25 uid ${1000 + i}`],
  ['processes', (i: number) => `drop process worker-${i}`],
])('of 10 000 rules for %s, those that never match are found within a second', (_, line) => {
  const rules = Array.from({ length: 10_000 }, (_, i) => parseRule(line(i)))
  // One that covers the last.
  const list = { rules: [{ action: 'drop', ...rules.at(-1) } as Rule, ...rules], default: 'proxy' } as const
  const resolved = resolveList(list, names)
  const compiled = compile(resolved, 1)
  const before = process.cpuUsage()
  expect(shadowed(resolved.rules, compiled)).toEqual([{ rule: 10_001, by: 1 }])
  expect(process.cpuUsage(before).user).toBeLessThan(1e6)
})
