import { expect, it } from 'vitest'
import { examine } from './firewall.ts'
import type { Expression } from './ruleset.ts'

const meta = (key: string, right: unknown, op = '=='): Expression => ({
  match: { op, left: { meta: { key } }, right },
})
const state = (...right: string[]): Expression => ({
  match: { op: 'in', left: { ct: { key: 'state' } }, right },
})
const field = (protocol: string, name: string, right: unknown): Expression => ({
  match: { op: '==', left: { payload: { protocol, field: name } }, right },
})
const accept = { accept: null }
const drop = { drop: null }
const chain = { family: 'inet', table: 't', name: 'input' }

function statuses(rules: Expression[][], hook = 'input', policy = 'drop'): string[] {
  const found = examine({
    chains: [{ ...chain, hook, policy }],
    rules: rules.map((expr) => ({ family: 'inet', table: 't', chain: 'input', expr })),
  })
  return found.map(({ status, remedy }) => (remedy === undefined ? status : `${status}: ${remedy}`))
}
const insert = 'warn: nft insert rule inet t input iif lo accept'

it('is content with lo accepted for every address', () => {
  expect(
    statuses([
      [meta('iif', 'lo'), accept],
      [state('established', 'related'), accept],
    ]),
  ).toEqual(['ok'])
  expect(
    statuses([
      [state('invalid'), drop],
      [meta('iifname', 'lo'), { counter: {} }, accept],
    ]),
  ).toEqual(['ok'])
})

it('finds lo accepted for 127.0.0.0/8 only, or not at all', () => {
  const local = { prefix: { addr: '127.0.0.0', len: 8 } }
  expect(statuses([[meta('iif', 'lo'), field('ip', 'daddr', local), accept]])).toEqual([insert])
  expect(statuses([[field('tcp', 'dport', 22), accept]])).toEqual([insert])
  expect(statuses([], 'input', 'accept')).toEqual(['ok'])
})

it('finds a reverse path check before lo is accepted', () => {
  const fib = { match: { op: '==', left: { fib: { result: 'oif', flags: ['saddr', 'iif'] } }, right: false } }
  expect(statuses([[fib, drop]], 'prerouting', 'accept')).toEqual([insert])
  expect(
    statuses(
      [
        [meta('iif', 'lo'), accept],
        [fib, drop],
      ],
      'prerouting',
      'accept',
    ),
  ).toEqual(['ok'])
})

it('does not blame rules that depend on the connection, or are for other interfaces', () => {
  expect(statuses([[field('tcp', 'dport', 25), drop]], 'input', 'accept')).toEqual(['ok'])
  expect(statuses([[meta('iif', 'lo', '!='), drop]], 'input', 'accept')).toEqual(['ok'])
})
