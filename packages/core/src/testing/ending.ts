import type { Socket } from 'node:net'

/** How a socket ended, as its program sees it. */
export async function ending(socket: Socket): Promise<string> {
  socket.resume()
  const { promise, resolve } = Promise.withResolvers<string>()
  socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'))
  socket.once('end', () => resolve('end'))
  return promise
}
