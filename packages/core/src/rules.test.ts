import { expect, test } from 'vitest'
import { compileRules, parseRule } from './rules.ts'

test('a rule reads its fields in any order, with commas or spaces', () => {
  expect(parseRule('drop tcp dport 25')).toEqual({ action: 'drop', dport: [[25, 25]] })
  expect(parseRule('direct to 10.0.0.0/8 192.168.0.0/16')).toEqual({
    action: 'direct',
    to: ['10.0.0.0/8', '192.168.0.0/16'],
  })
  expect(parseRule('proxy dport 80,443, 8000-8999 tcp to 2001:db8::/32')).toEqual({
    action: 'proxy',
    dport: [
      [80, 80],
      [443, 443],
      [8000, 8999],
    ],
    to: ['2001:db8::/32'],
  })
})

test.each([
  ['', 'at the end: expected an action'],
  ['deny tcp', 'at column 1, "deny": expected an action'],
  ['drop udp', 'at column 6, "udp": expected tcp, to or dport'],
  ['drop to', 'at the end: expected an address or prefix'],
  ['drop to dport 5', 'at column 9, "dport": expected an address or prefix'],
  ['drop to 10.0.0.0/33', 'at column 9, "10.0.0.0/33"'],
  ['drop to 10.0.0', 'at column 9, "10.0.0"'],
  ['drop dport 65536', 'at column 12, "65536": expected a port or range'],
  ['drop dport 9-8', 'at column 12, "9-8"'],
])('"%s" is refused with the column', (text, message) => {
  expect(() => parseRule(text)).toThrow(message)
})

const hex = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString('hex')

test('prefixes of both families become one 128-bit match', () => {
  const [v4, v6, any] = compileRules(['drop to 10.1.2.3/8', 'drop to 2001:db8::ff/127', 'drop'], 10)
  expect([hex(v4?.address), hex(v4?.mask)]).toEqual([
    '00000000000000000000ffff0a000000',
    'ffffffffffffffffffffffffff000000',
  ])
  expect([hex(v6?.address), hex(v6?.mask)]).toEqual([
    '20010db80000000000000000000000fe',
    'fffffffffffffffffffffffffffffffe',
  ])
  expect([hex(any?.address), hex(any?.mask)]).toEqual(['0'.repeat(32), '0'.repeat(32)])
})

test('lists expand to every pair of prefix and range, under the number of their rule', () => {
  const compiled = compileRules([{ action: 'direct' }, 'drop to 10.0.0.1 10.0.0.2 dport 1,2-3'], 10)
  expect(compiled.map(({ number, portLow, portHigh }) => [number, portLow, portHigh])).toEqual([
    [1, 0, 65535],
    [2, 1, 1],
    [2, 2, 3],
    [2, 1, 1],
    [2, 2, 3],
  ])
})

test('more than the kernel holds is refused', () => {
  expect(() => compileRules(['drop dport 1,2,3'], 2)).toThrow(
    'expand to 3 pairs of prefix and port range (at most 2)',
  )
})

test('objects are checked like lines', () => {
  expect(() => compileRules([{ action: 'direct', to: ['nowhere'] }], 9)).toThrow(
    'rule 1: "nowhere" is not an address',
  )
  expect(() => compileRules([{ action: 'direct', dport: [[5, 4]] }], 9)).toThrow(
    'rule 1: 5-4 is not a port range',
  )
})
