import { expect, it } from 'vitest'
import { missingCapabilities, requirePrivileges } from './privileges.ts'

const holding = (...bits: bigint[]) =>
  `Name:\tx\nCapEff:\t${bits
    .reduce((mask, bit) => mask | (1n << bit), 0n)
    .toString(16)
    .padStart(16, '0')}\n`

it('names the capabilities that are missing', () => {
  expect(missingCapabilities(holding())).toEqual(['CAP_BPF', 'CAP_NET_ADMIN', 'CAP_PERFMON'])
  expect(missingCapabilities(holding(39n, 12n))).toEqual(['CAP_PERFMON'])
})

it('takes CAP_SYS_ADMIN for those it implies', () => {
  expect(missingCapabilities(holding(21n))).toEqual(['CAP_NET_ADMIN'])
})

it('tells who lacks them to use sudo, and of a command only where there is one', () => {
  expect(() => requirePrivileges('', ['CAP_BPF'])).toThrow(/^missing CAP_BPF \(run it with sudo\)$/)
  expect(() => requirePrivileges('; as you', ['CAP_BPF'])).toThrow('(run it with sudo; as you)')
  requirePrivileges('', [])
})
