import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { Devices } from './devices.ts'
import { follow } from './follow.ts'

const changed = vi.hoisted(() => ({ network: () => {} }))
vi.mock('@tproxy/bpf', () => ({
  watchNetwork: (callback: () => void) => {
    changed.network = callback
    return { close: () => {} }
  },
}))
beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

/** What is refused at each look; a look behind the last fails. */
function watch(...looks: (readonly string[])[]) {
  const warnings: string[] = []
  let count = 0
  const following = follow({
    present: async () => {
      if (looks[count] === undefined) throw new Error(`look ${++count}`)
      return { present: [], taken: [] }
    },
    devices: {
      update: () => ({ attached: false, refused: (looks[count++] ?? []).map((why) => new Error(why)) }),
    } as unknown as Devices,
    attached: () => {},
    changed: async () => {},
    warn: (message) => warnings.push(message.replace(/.*: /, '')),
  })
  changed.network()
  return { following, warnings, count: () => count }
}

test('what is refused is tried again, and said once', async () => {
  const { following, warnings, count } = watch(['no memory'], ['no memory'], ['no memory', 'full'], [])
  await vi.advanceTimersByTimeAsync(100)
  expect([count(), warnings]).toEqual([1, ['no memory']])
  await vi.advanceTimersByTimeAsync(1_000)
  expect([count(), warnings]).toEqual([2, ['no memory']])
  await vi.advanceTimersByTimeAsync(2_000)
  expect([count(), warnings]).toEqual([3, ['no memory', 'full']])
  await vi.advanceTimersByTimeAsync(4_000)
  // Now nothing is.
  await vi.advanceTimersByTimeAsync(600_000)
  expect([count(), warnings]).toEqual([4, ['no memory', 'full']])
  following[Symbol.dispose]()
})

test('a network that changes without end is looked at, also while something is to be tried again', async () => {
  const { following, count } = watch(['full'], ['full'], ['full'], ['full'], ['full'])
  for (let change = 0; change < 10; change++) {
    changed.network()
    await vi.advanceTimersByTimeAsync(50)
  }
  expect(count()).toBe(5)
  following[Symbol.dispose]()
})

test('a look that fails is made again', async () => {
  const { following, warnings } = watch()
  await vi.advanceTimersByTimeAsync(1_100)
  expect(warnings).toEqual(['look 1', 'look 2'])
  following[Symbol.dispose]()
  await vi.advanceTimersByTimeAsync(600_000)
  expect(warnings).toHaveLength(2)
})
