import { Socket } from 'node:net'
import { type Carriage, PairState, type Splicing } from '@tproxy/bpf'
import { expect, test } from 'vitest'
import type { SessionEnd } from '../session.ts'
import { Pair } from './pair.ts'
import { BrokenSocket, TcpSocket } from './tcp-socket.ts'

const carried: Carriage = {
  state: PairState.carried,
  unfit: 0,
  sent: 0n,
  received: 0n,
  idleNs: 0n,
  alone: 0,
  by: 0,
  half: 0,
}

/** A pair of which the kernel says what is in `carriage`, and all that became of it. */
function onePair(limits: { idleMs: number; halfClosedMs: number } = { idleMs: 1000, halfClosedMs: 100 }) {
  const kernel = { carriage: carried, severed: 0 }
  const ends: SessionEnd[] = []
  const splicing: Pick<Splicing, 'settle' | 'sever'> = {
    settle: () => kernel.carriage,
    sever: () => void kernel.severed++,
  }
  const gone = () => new TcpSocket(new Socket().destroy())
  const sockets = [gone(), gone()] as const
  const pair = new Pair({
    index: 0,
    serial: 1,
    family: 4,
    listener: { ...limits, relay: () => {}, silent: () => {}, ended: (end) => void ends.push(end) },
    sockets,
    owner: {
      splicing: splicing as Splicing,
      budget: { limit: 1, open: 0 },
      keeps: false,
      silent: () => {},
      over: () => {},
    },
  })
  return { pair, kernel, ends, sockets }
}

test('what our sockets cannot deliver is ended when nothing moves for too long', () => {
  const { pair, kernel, ends } = onePair()
  pair.update({ ...carried, idleNs: 900_000_000n })
  expect(ends).toEqual([])
  pair.update({ ...carried, idleNs: 1_100_000_000n })
  expect(ends).toMatchObject([{ how: 'timeout', error: { message: 'idle for 1000 ms' } }])
  expect(kernel.severed).toBe(1)
})

test('the same once one direction has ended, after its own time; never where there is no limit, or a relay has it', () => {
  const half = onePair()
  half.pair.update({ ...carried, half: 1, idleNs: 110_000_000n })
  expect(half.ends).toMatchObject([{ how: 'timeout', error: { message: 'idle for 100 ms' } }])
  const patient = onePair({ idleMs: 0, halfClosedMs: 0 })
  patient.pair.update({ ...carried, idleNs: 10n ** 15n })
  const relayed = onePair()
  relayed.pair.relay()
  relayed.pair.update({ ...carried, idleNs: 10n ** 15n })
  expect([...patient.ends, ...relayed.ends]).toEqual([])
})

test('when its relay ends, all bytes are counted that the kernel has carried until then', () => {
  const { pair, kernel } = onePair()
  pair.relay()
  pair.update({ ...carried, sent: 1n })
  kernel.carriage = { ...carried, sent: 1000n, received: 5n }
  pair.release()
  kernel.carriage = { ...carried, sent: 7n }
  expect(pair.bytes).toEqual({ sent: 1000, received: 5 })
})

test('a socket of ours that was reset ends what still lasts; what had ended before has ended so', async () => {
  const ended = { carried: 'reset', closed: 'closed', reset: 'reset' } as const
  for (const [state, how] of Object.entries(ended)) {
    const { pair, kernel, ends, sockets } = onePair()
    kernel.carriage = { ...carried, state: PairState[state as keyof typeof ended], by: 1 }
    sockets[0].read = () => {
      throw new BrokenSocket(sockets[0], new Error('ECONNRESET'))
    }
    pair.deliver()
    await Promise.resolve()
    const by = state === 'reset' ? 'upstream' : 'client'
    expect(ends).toMatchObject([how === 'closed' ? { how } : { how, by }])
    expect(kernel.severed).toBe(state === 'carried' ? 1 : 0)
  }
})
