import type { Duplex } from 'node:stream'
import { type Destination, formatEndpoint } from '@tproxy/core'
import { failure, type Way } from './dial.ts'
import type { Client } from './forward.ts'
import { join } from './join.ts'
import { pair } from './pair.ts'
import { sniff } from './sniff.ts'
import { tunnel } from './tunnel.ts'

// Long enough for the first request to follow the handshake over a bad link; all that a server-first protocol waits.
const silenceMs = 300

/**
 * Opens a connection to a destination that probably speaks plain HTTP, and returns the client's end of it. What the
 * client sends decides: requests are forwarded one by one, anything else, silence included, gets a tunnel.
 *
 * Whatever fails later destroys the returned stream with an error.
 */
export function plain(way: Way, destination: Destination, forward: (client: Client) => void): Duplex {
  const step = `${formatEndpoint(destination)} through ${way.proxy.name}`
  const { near, far, valve } = pair(() => failure(step, new Error('the connection was cut')))
  const gone = new AbortController()
  near.once('close', () => gone.abort())
  const fail = (error: Error): void => {
    near.destroy(error)
  }
  const client: Client = {
    stream: far,
    valve,
    destination,
    fail,
    tunnel: () => {
      valve.portion = Number.POSITIVE_INFINITY
      tunnel(way, destination, gone.signal)
        .then((socket) => join(far, socket, (cause) => fail(failure(step, cause))))
        .catch((cause: unknown) => fail(failure(step, cause)))
    },
  }
  void sniff(far, near, { silenceMs, lineMs: way.timeoutMs }).then((http) => {
    if (far.destroyed) return
    if (http) forward(client)
    else client.tunnel()
  })
  return near
}
