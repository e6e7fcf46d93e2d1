import type { Action, Criteria, Packet, Rule } from '@tproxy/core'
import * as fc from 'fast-check'

/** Few values, so that rules meet packets; and the edges of ranges and prefixes, where off-by-one errors live. */
const v4 = [
  '10.0.0.0',
  '10.0.0.1',
  '10.0.0.255',
  '10.0.1.0',
  '10.1.0.0',
  '10.255.255.255',
  '11.0.0.0',
  '0.0.0.0',
].concat(['255.255.255.255', '192.0.2.7', '127.255.255.255', '128.0.0.0'])
const v6 = [
  '2001:db8::',
  '2001:db8::1',
  '2001:db8::ff',
  '2001:db8:0:1::',
  '2001:db8:1::',
  '2001:db9::',
  '::',
  '::1',
].concat([
  'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  '2001:db8:0:0:ffff:ffff:ffff:ffff',
  'fe80::1',
  'fd00::1',
])
const prefixes = [
  ...[
    '0.0.0.0/0',
    '10.0.0.0/8',
    '10.0.0.0/24',
    '10.0.0.0/31',
    '10.0.0.1',
    '10.0.0.1-10.1.0.0',
    '128.0.0.0/1',
  ],
  ...[
    '192.0.2.0/25',
    '10.0.0.255-10.0.1.0',
    '::/0',
    '2001:db8::/32',
    '2001:db8::/64',
    '2001:db8::1',
    'fd00::/8',
  ],
  ...['2001:db8::ff-2001:db8:0:1::', '2001:db8::/127', 'fe80::/10', '8000::/1', '2001:db8:0:0:8000::/65'],
]
const ports = [0, 1, 79, 80, 443, 444, 8000, 8999, 9000, 65_534, 65_535]
const portRanges = [80, 443, '79-80', '8000-8999', '0-65535', '1-65534', 65_535, 0]
const numbers = [0, 1, 999, 1000, 1001, 1999, 2000, 65_534, 4_294_967_295]
const ids = [0, 1000, '1000-1999', '2000-4294967295', 4_294_967_295]
const processes = ['curl', 'ssh', 'a', 'fifteen-bytes-x']
const interfaces = ['wan0', 'wan1']

const oneOf = <T>(values: readonly T[]) =>
  fc.oneof(
    fc.constantFrom(...values),
    fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 4 }),
  )

/** Fields that every packet of the tests has; those of programs are left to real ones. */
const packetCriteria = {
  protocol: oneOf<string | number>(['tcp', 'udp', 'icmp', 'icmpv6', 'sctp', 47, '0-5', 255]),
  ip: fc.constantFrom<4 | 6>(4, 6),
  from: oneOf(prefixes),
  to: oneOf(prefixes),
  sport: oneOf(portRanges),
  dport: oneOf(portRanges),
  interface: oneOf(interfaces),
  mark: oneOf([0, 1, '0x10', '16-4294967295']),
  dscp: oneOf<string | number>([0, 'ef', 'cs1', '8-20', 63]),
}

const ownerCriteria = {
  uid: oneOf(ids),
  gid: oneOf(ids),
  process: oneOf(processes),
  cgroup: oneOf(['/a', '/a/b', '/a/b/c', '/d']),
}

/** Optional fields, mostly absent: a rule with all of them never matches. */
function criteria(fields: Record<string, fc.Arbitrary<unknown>>): fc.Arbitrary<Criteria> {
  const sparse = Object.entries(fields).map(([name, value]) => [
    name,
    fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value }),
  ])
  return fc.record(Object.fromEntries(sparse) as Record<string, fc.Arbitrary<unknown>>).map(withoutUndefined)
}

const withoutUndefined = (fields: object) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))

/** Rules that make sense: `proxy` carries TCP only, and processes are known for TCP only. */
function rulesOf(
  fields: Record<string, fc.Arbitrary<unknown>>,
  actions: readonly Action[],
): fc.Arbitrary<Rule> {
  return fc
    .record({ action: fc.constantFrom(...actions), plain: criteria(fields), not: criteria(fields) })
    .map(({ action, plain, not }) => {
      const tcpOnly = action === 'proxy' || [plain, not].some((c) => 'process' in c || 'gid' in c)
      const { protocol, ...rest } = plain
      return {
        action,
        ...(tcpOnly || protocol === undefined ? rest : plain),
        ...(Object.keys(not).length > 0 && { not }),
      } as Rule
    })
}

const actions: readonly Action[] = ['proxy', 'direct', 'drop', 'reject']

/** Rules over all that a packet without a known program has. */
export const packetRule: fc.Arbitrary<Rule> = rulesOf(packetCriteria, actions)
/** Rules over everything. */
export const anyRule: fc.Arbitrary<Rule> = rulesOf({ ...packetCriteria, ...ownerCriteria }, actions)

const withPorts = new Set([6, 17, 33, 132, 136])

/** Packets of both families that such rules often match. */
export const anyPacket: fc.Arbitrary<Packet> = fc
  .record({
    ip: fc.constantFrom<4 | 6>(4, 6),
    protocol: fc.constantFrom(6, 6, 6, 17, 17, 1, 58, 132, 47, 0, 255),
    ends: fc.tuple(fc.nat(11), fc.nat(11)),
    sport: fc.constantFrom(...ports),
    dport: fc.constantFrom(...ports),
    interface: fc.constantFrom(...interfaces),
    mark: fc.constantFrom(0, 1, 16, 4_294_967_295),
    dscp: fc.constantFrom(0, 8, 46, 20, 63),
    owner: fc.option(
      fc.record({
        uid: fc.constantFrom(...numbers),
        gid: fc.constantFrom(...numbers),
        process: fc.constantFrom(...processes),
        cgroups: fc.constantFrom(
          ['/'],
          ['/', '/a'],
          ['/', '/a', '/a/b'],
          ['/', '/a', '/a/b', '/a/b/c'],
          ['/', '/d', '/d/e'],
        ),
      }),
      { nil: undefined },
    ),
  })
  .map(({ ends: [source, destination], sport, dport, owner, ...packet }) => {
    const addresses = packet.ip === 4 ? v4 : v6
    return {
      ...packet,
      source: addresses[source] ?? '',
      destination: addresses[destination] ?? '',
      ...(withPorts.has(packet.protocol) && { sport, dport }),
      ...owner,
    }
  })

/** Rule lists: mostly short, some longer than a word of the kernel's rows. */
export const listOf = (rule: fc.Arbitrary<Rule>): fc.Arbitrary<Rule[]> =>
  fc.oneof(
    { weight: 4, arbitrary: fc.array(rule, { maxLength: 12 }) },
    { weight: 1, arbitrary: fc.array(rule, { minLength: 60, maxLength: 200 }) },
  )
