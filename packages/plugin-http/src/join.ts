import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { reset } from '@tproxy/core'

/**
 * Carries bytes between our end of a client's connection and a tunnel, each direction ending on its own.
 * `fail` is called when the tunnel breaks before both have ended; the tunnel is reset when the client breaks off.
 */
export function join(client: Duplex, tunnel: Socket, fail: (cause: Error) => void): void {
  // The client may have gone when the tunnel was up and nobody had been told yet: its 'close' does not come again.
  if (client.destroyed) return reset(tunnel)
  let cause = new Error('the connection to the proxy was cut')
  tunnel.on('error', (error) => {
    cause = error
  })
  tunnel.on('close', () => {
    if (!tunnel.readableEnded || !tunnel.writableFinished) fail(cause)
  })
  client.on('close', () => {
    // When both have ended, what is left of the tunnel's buffer still has to go out.
    if (client.readableEnded && tunnel.readableEnded) return
    // An orderly end would look like a complete upload to the other side.
    reset(tunnel)
  })
  client.pipe(tunnel).pipe(client)
}
