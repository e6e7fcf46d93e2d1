import { expect, it } from 'vitest'
import { locate } from '../finding.ts'
import { findInRules } from './check.ts'

const found = (text: string) =>
  findInRules(text).map((finding) => `${finding.severity} ${locate('f', finding)}`)

it('finds rules of no use', () => {
  expect(
    found(`drop icmp dport 80
drop ip4 to 2001:db8::1

  drop tcp not tcp
drop udp
reject udp dport 53 # never
drop interface nosuch0
direct interface nosuch1
reject not tcp process curl
`),
  ).toEqual([
    'warning f:7:16: there is no interface nosuch0 now (it matches nothing until there is one)',
    'warning f:8:18: there is no interface nosuch1 now (it matches nothing until there is one)',
    ...[
      [1, 1],
      [2, 2],
      [4, 3],
      [9, 8],
    ].map(([line, rule]) =>
      expect.stringMatching(
        new RegExp(`^warning f:${line}:\\d: rule ${rule} never matches: no packet is all that it asks for`),
      ),
    ),
    'warning f:6:1: rule 5 never matches: rule 4 covers it (drop udp) (put it before rule 4, or remove it)',
  ])
})

it('finds what has a file refused', () => {
  expect(
    found('drop prot 25\ndrop uid nosuch\ndefault redirect:nosuch0\ndefault direct\ndrop tcp not tcp'),
  ).toEqual([
    expect.stringMatching(/^error f:1:6: expected what to match, .*\(did you mean proto\?\)$/),
    'error f:4:1: expected default once, got "default" (see line 3)',
    'error f:2:10: there is no user nosuch (see: getent passwd)',
    'error f:3:18: redirect:nosuch0: there is no interface nosuch0 (see: ip link)',
  ])
})
