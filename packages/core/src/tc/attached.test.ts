import type { Restored, Splicing, Steering } from '@tproxy/bpf'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { watchAttached } from './attached.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

/** What is said about what is found look by look, and how often the links had changed. */
function watched(...looks: { steering?: Restored[]; splicing?: Restored[]; before?: () => string[] }[]) {
  const said: string[] = []
  let held = 0
  let look = -1
  const steering: Pick<Steering, 'restore' | 'before'> = {
    restore: () => looks[++look]?.steering ?? [],
    before: () => looks[look]?.before?.() ?? [],
  }
  const splicing: Pick<Splicing, 'restore'> = { restore: () => looks[look]?.splicing ?? [] }
  using _watch = watchAttached({
    steering: steering as Steering,
    splicing: splicing as Splicing,
    interfaces: () => [{ name: 'wan0', ifindex: 2, mac: Buffer.alloc(6), hasMac: true, mtu: 1500 }],
    attached: () => held++,
    warn: (message) => said.push(message),
  })
  vi.advanceTimersByTime(1000 * looks.length)
  return { said, held }
}

const refused = { name: 'lo_egress', error: new Error('attach lo_egress to lo: EPERM') }
const failing = () => {
  throw new Error('list the programs of an interface: EPERM')
}

test('what is attached again is held and told, whatever else is refused', () => {
  const { said, held } = watched({
    steering: [{ name: 'wan_egress 2' }, refused],
    before: failing,
  })
  expect(held).toBe(1)
  expect(said).toEqual([
    'somebody detached wan_egress 2, which is back; connections went direct meanwhile',
    'look whether all is attached: attach lo_egress to lo: EPERM; list the programs of an interface: EPERM',
  ])
})

test('what fails again and again is told once, and again when it had been well meanwhile', () => {
  const look = { steering: [refused] }
  const { said, held } = watched(look, look, {}, look, { before: failing }, { before: failing })
  expect(held).toBe(0)
  const message = 'look whether all is attached: attach lo_egress to lo: EPERM'
  expect(said).toEqual([
    message,
    message,
    'look whether all is attached: list the programs of an interface: EPERM',
  ])
})

test('without the programs that carry, connections do not go direct', () => {
  const carrying = { steering: [{ name: 'lo_egress' }], splicing: [{ name: 'egress-2' }] }
  expect(watched(carrying).said).toEqual([
    'somebody detached lo_egress, egress-2, which are back; those that we carry stood still, or broke off, meanwhile',
  ])
  expect(watched({ ...carrying, steering: [{ name: 'wan_egress 2' }] }).said).toEqual([
    'somebody detached wan_egress 2, egress-2, which are back; connections went direct, and those that we carry stood still, or broke off, meanwhile',
  ])
})
