import type { Criteria } from './model.ts'
import { parseAddresses, parseDscp, parseNumbers, parseProcess, parseProtocol, protocols } from './values.ts'

/** How a list field is written, and what to say when a value is none. */
export interface Field {
  readonly name: Exclude<keyof Criteria, 'ip'>
  readonly valid: (word: string) => boolean
  readonly expected: string
}

const some = (word: string) => word !== ''
const port = (word: string) => parseNumbers(word, 0xffff) !== undefined
const id = (word: string) => parseNumbers(word, 0xffffffff) !== undefined || /^[a-z_][\w.@-]*\$?$/i.test(word)

const address = 'an address, prefix or range, such as 10.0.0.0/8 or 192.0.2.1-192.0.2.9'
export const fields: Readonly<Record<string, Field>> = {
  proto: {
    name: 'protocol',
    valid: (word) => parseProtocol(word) !== undefined,
    expected: 'a protocol, such as gre or 47',
  },
  from: { name: 'from', valid: (word) => parseAddresses(word) !== undefined, expected: address },
  to: { name: 'to', valid: (word) => parseAddresses(word) !== undefined, expected: address },
  sport: { name: 'sport', valid: port, expected: 'a port or range, such as 443 or 8000-8999' },
  dport: { name: 'dport', valid: port, expected: 'a port or range, such as 443 or 8000-8999' },
  interface: { name: 'interface', valid: some, expected: 'an interface, such as eth0' },
  uid: { name: 'uid', valid: id, expected: 'a user, such as 1000, 1000-1999 or alice' },
  gid: { name: 'gid', valid: id, expected: 'a group, such as 1000, 1000-1999 or staff' },
  cgroup: { name: 'cgroup', valid: some, expected: 'a cgroup, such as /user.slice or ssh.service' },
  process: {
    name: 'process',
    valid: (word) => parseProcess(word) !== undefined,
    expected: 'the name of a process, of at most 15 bytes',
  },
  mark: {
    name: 'mark',
    valid: (word) => parseNumbers(word, 0xffffffff) !== undefined,
    expected: 'a mark, such as 0x10',
  },
  dscp: {
    name: 'dscp',
    valid: (word) => parseDscp(word) !== undefined,
    expected: 'a DSCP, such as 46 or ef',
  },
}

/** What a rule can look at. */
export const criteria: readonly (keyof Criteria)[] = ['ip', ...Object.values(fields).map(({ name }) => name)]

export const versions: Readonly<Record<string, 4 | 6>> = { ip4: 4, ipv4: 4, ip6: 6, ipv6: 6 }
export const aliases: Readonly<Record<string, string>> = { iface: 'interface', protocol: 'proto' }
export const actions: readonly string[] = [
  'proxy',
  'direct',
  'drop',
  'reject',
  'redirect:IFACE',
  'redirect-into:IFACE',
]
export const keywords: readonly string[] = [
  ...Object.keys(fields),
  ...Object.keys(aliases),
  ...Object.keys(protocols),
  ...Object.keys(versions),
  'not',
  'via',
  'log',
]

/** What is expected instead of a value that a field cannot have; undefined when it can. */
export function misfit(name: Exclude<keyof Criteria, 'ip'>, value: unknown): string | undefined {
  const field = Object.values(fields).find((candidate) => candidate.name === name)
  const fits = (typeof value === 'string' || typeof value === 'number') && value !== ''
  return fits && field?.valid(String(value)) ? undefined : field?.expected
}
