import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

/**
 * Both ends of a TCP connection over 127.0.0.1, so that half-close, resets and back-pressure behave as they do in earnest. The
 * accepted end is paused.
 */
export async function socketPair(): Promise<[dialled: Socket, accepted: Socket]> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const dialled = connect({ host: '127.0.0.1', port, allowHalfOpen: true })
  const [[accepted]] = (await Promise.all([once(server, 'connection'), once(dialled, 'connect')])) as [
    [Socket],
    [],
  ]
  server.close()
  return [dialled, accepted]
}
