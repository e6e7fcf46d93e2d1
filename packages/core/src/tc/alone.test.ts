import { setImmediate as nextTurn } from 'node:timers/promises'
import type { HeldSyn, Watched } from '@tproxy/bpf'
import { expect, test } from 'vitest'
import type { SessionEnd } from '../session.ts'
import { Alone } from './alone.ts'
import type { Openings } from './openings.ts'

const address = new Uint8Array(16)
const held = {
  id: 1,
  key: { source: address, destination: address, sourcePort: 1, destinationPort: 2 },
  flow: { slot: 0 },
  hop: new Uint8Array(6),
} as unknown as HeldSyn

/** One whose kernel tells what `watched` says, and no event. */
function alone(watched: () => Watched | undefined) {
  const known = new Set<unknown>()
  const openings = {
    kernel: { leaveAlone: () => true, watch: watched, cut: () => {} },
    add: (one: unknown) => known.add(one),
    forget: (one: unknown) => known.delete(one),
  }
  const by = { family: 4, ifindex: 1 } as const
  const options = { held, keeps: false, openings: openings as unknown as Openings, by }
  return { known, it: new Alone(options, new AbortController().signal) }
}

test('where events are lost, a look finds that it was reached, and the second one that it is gone', async () => {
  let watched: Watched | undefined = { state: 2, sent: 0n, received: 0n }
  const { known, it } = alone(() => watched)
  const answered = it.answered
  it.look()
  watched = { state: 1, sent: 5n, received: 7n }
  it.look()
  expect(await answered).toBe(it)

  const ends: SessionEnd[] = []
  it.carry({ idleMs: 0, halfClosedMs: 0, relay: () => {}, silent: () => {}, ended: (end) => ends.push(end) })
  watched = undefined
  // Its end may be about to be told.
  it.look()
  expect(ends).toEqual([])
  it.look()
  expect(ends).toEqual([{ how: 'reset' }])
  expect(it.bytes).toEqual({ sent: 5, received: 7 })
  expect(known.size).toBe(0)
})

test('where only its end is heard of, it was reached, and ended as it did', async () => {
  const { it } = alone(() => undefined)
  const answered = it.answered
  const ends: SessionEnd[] = []
  it.ended({ event: 2, id: 1, state: 5, error: 0, sent: 5n, received: 7n })
  expect(await answered).toBe(it)
  it.carry({ idleMs: 0, halfClosedMs: 0, relay: () => {}, silent: () => {}, ended: (end) => ends.push(end) })
  await nextTurn()
  expect(ends).toEqual([{ how: 'closed' }])
  expect(it.bytes).toEqual({ sent: 5, received: 7 })
})
