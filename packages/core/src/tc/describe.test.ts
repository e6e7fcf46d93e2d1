import type { Flow } from '@tproxy/bpf'
import { expect, test } from 'vitest'
import { endpoint } from '../endpoint.ts'
import { describeFlow } from './describe.ts'
import type { KernelRules } from './rules.ts'

const ends = {
  source: endpoint('192.0.2.1', 4000),
  destination: endpoint('203.0.113.1', 443),
  interface: 'wan0',
}

/** The second of its rules sends all to a plugin. */
const rules = {
  ruleOf: (_, rule) => ({ action: 'proxy', ...(rule === 2 && { via: 'office' }) }),
  judge: () => ({ action: 'proxy', via: 'office' }),
} as Pick<KernelRules, 'ruleOf' | 'judge'> as KernelRules

const owner = { pid: 7, uid: 1, gid: 1, cgroup: 1n, name: 'curl' }

test('a connection is the plugin\u2019s that its rule names', () => {
  const flow = { owner, rule: 2, generation: 1 } as Flow
  const curl = { pid: 7, uid: 1, gid: 1, name: 'curl', cgroup: undefined }
  expect(describeFlow(flow, ends, () => curl, rules)).toEqual({ rule: 2, via: 'office', process: curl })
})

test('also when the kernel has forgotten what it knew of it: never another\u2019s, or the default\u2019s', () => {
  expect(describeFlow(undefined, ends, () => undefined, rules)).toEqual({ via: 'office' })
})
