import { once } from 'node:events'
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { defer, type Observable } from 'rxjs'
import { failure } from '../finding.ts'
import type { Request, Response } from './protocol.ts'

/** What answers a request, one line for each value. */
export type Answer = (request: Request) => Observable<unknown>

/** Bytes that may wait for somebody who asks and does not read. */
const pendingLimit = 1_000_000

/** How long those who asked may take to read the last of it, once we end. */
const farewellMs = 200

/** Answers requests on a socket of ours that only our own user, and root, can reach. */
export async function serve(path: string, answer: Answer): Promise<AsyncDisposable> {
  const clients = new Set<Socket>()
  const server = createServer((socket) => {
    clients.add(socket)
    socket.once('close', () => clients.delete(socket))
    // Which repeats the errors of its input: a client that is gone needs no answer.
    createInterface({ input: socket })
      .on('line', (line) => reply(socket, line, answer))
      .on('error', () => {})
  })
  // A process that had our number may have died without removing it.
  rmSync(path, { force: true })
  server.listen(path)
  await once(server, 'listening')
  chmodSync(path, 0o600)
  return {
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.destroySoon()
      server.close()
      const deadline = setTimeout(() => {
        for (const client of clients) client.destroy()
      }, farewellMs)
      await once(server, 'close')
      clearTimeout(deadline)
    },
  }
}

function reply(socket: Socket, line: string, answer: Answer): void {
  const write = (response: Response) => socket.write(`${JSON.stringify(response)}\n`)
  const answers = defer(() => answer(JSON.parse(line) as Request)).subscribe({
    // Who does not read misses some, rather than filling our memory.
    next: (value) => socket.writableLength > pendingLimit || write({ answer: value }),
    error: (error: unknown) => {
      write({ error: failure(error) })
      socket.end()
    },
    complete: () => socket.end(),
  })
  socket.once('close', () => answers.unsubscribe())
}
