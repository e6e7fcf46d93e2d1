import { expect, it } from 'vitest'
import { parsePacket } from './packet.ts'

it('takes an IPv4 address in IPv6 for what goes over the wire', () => {
  const packet = parsePacket(['tcp', '::ffff:192.0.2.1', '[::ffff:203.0.113.1]:80'], {})
  expect(packet).toMatchObject({ ip: 4, source: '192.0.2.1', destination: '203.0.113.1', dport: 80 })
  expect(packet).not.toHaveProperty('sport')
  expect(parsePacket(['tcp', '192.0.2.1', '::ffff:203.0.113.1'], {})).toMatchObject({ ip: 4 })
})

it('refuses what would be looked up as something else', () => {
  const parse = (to: string) => () => parsePacket(['tcp', 'fe80::1', to], {})
  expect(parse('fe80::2%eth0')).toThrow('"fe80::2%eth0" is an address with a zone (write fe80::2)')
  expect(parse('[fe80::2%eth0]:80')).toThrow('is an address with a zone (write fe80::2)')
  expect(parse('fe80::g')).toThrow('"fe80::g" is no address')
  expect(parse('[fe80::2]:65536')).toThrow('is no address')
  expect(parse('192.0.2.1')).toThrow('fe80::1 and 192.0.2.1 are of different IP versions')
})

it('takes a DSCP as rules do', () => {
  const dscp = (text: string) => parsePacket(['udp', '192.0.2.1', '192.0.2.2'], { dscp: text }).dscp
  expect(['ef', 'cs1', '46', '0x2e'].map(dscp)).toEqual([46, 8, 46, 46])
  expect(() => dscp('64')).toThrow('--dscp is "64" (a number up to 63, or a name such as ef)')
  expect(() => dscp('1-2')).toThrow('--dscp is "1-2"')
  expect(() => dscp('af45')).toThrow('did you mean af41?')
  expect(() => dscp('toString')).toThrow('--dscp is "toString"')
})
