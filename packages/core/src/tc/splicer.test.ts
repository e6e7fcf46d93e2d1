import { type Carriage, emptyFlow, PairState, type Splicing } from '@tproxy/bpf'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Acceptance, AcceptedConnection } from './accepted.ts'
import { Pair } from './pair.ts'
import { Splicer } from './splicer.ts'
import { TcpSocket } from './tcp-socket.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

/** One that is connected, and has nothing to read. */
class QuietSocket extends TcpSocket {
  constructor() {
    super(-1)
  }
  override get descriptor(): number {
    return -1
  }
  override read(): undefined {}
  override silence(): void {}
  override reset(): void {}
}

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

/** Kernel programs that leave every pair to be settled. */
const splicing = {
  watch: () => ({ close() {} }),
  arm: () => carried,
  settle: () => carried,
  sever() {},
  forget() {},
  vacant: false,
} as Partial<Splicing> as Splicing

test('sockets that long have something to deliver are looked at a few times each second', () => {
  using splicer = new Splicer({
    splicing,
    ifindexOf: () => 2,
    budget: { limit: 10, open: 0 },
    limits: { idleMs: 0, halfClosedMs: 0 },
    keeps: false,
  })
  const acceptance = { device: { interface: { name: 'wan0' } }, describe: () => ({}) }
  const begin = () => {
    const accepted = new AcceptedConnection(
      emptyFlow(),
      new QuietSocket(),
      undefined,
      acceptance as unknown as Acceptance,
    )
    const listener = { idleMs: 0, halfClosedMs: 0, relay() {}, silent() {}, ended() {} }
    expect(splicer.splice(accepted, new QuietSocket(), listener)).toBeInstanceOf(Pair)
  }
  const asked = vi.spyOn(Pair.prototype, 'due')
  const delivered = vi.spyOn(Pair.prototype, 'deliver')
  begin()
  vi.advanceTimersByTime(2000)
  const looks = delivered.mock.calls.length
  expect(looks).toBeGreaterThan(10)
  expect(looks).toBeLessThan(20)
  expect(asked.mock.calls.length).toBeLessThan(looks + 5)
  // One that has just begun does not wait for it.
  begin()
  vi.advanceTimersByTime(50)
  expect(delivered.mock.calls.length).toBeGreaterThan(looks + 3)
})
