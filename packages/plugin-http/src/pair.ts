import { type Duplex, duplexPair } from 'node:stream'
import { Valve } from './valve.ts'

/**
 * A pair of streams in memory, each carrying to the other what is written to it, where breaking one breaks both.
 *
 * In node's pair a destroyed end looks to the other like an orderly end, and a client's abort like a complete upload.
 * Here destroying `near` destroys `far` before anything else happens, and destroying `far` before both directions have
 * ended destroys `near` with the error that `cut` makes. Neither end throws when nobody listens for its errors yet.
 *
 * What `near` sends passes a valve.
 */
export function pair(cut: () => Error): { near: Duplex; far: Duplex; valve: Valve } {
  // One byte: what an end has read ahead no valve holds back any more.
  const [near, far] = duplexPair({ readableHighWaterMark: 1 })
  const valve = new Valve(near, far)
  const closeNear = near._destroy.bind(near)
  const closeFar = far._destroy.bind(far)
  near._destroy = (error, done) => {
    far.destroy()
    closeNear(error, done)
  }
  far._destroy = (error, done) => {
    if (!far.readableEnded || !far.writableFinished) near.destroy(cut())
    closeFar(error, done)
  }
  near.on('error', () => {})
  far.on('error', () => {})
  return { near, far, valve }
}
