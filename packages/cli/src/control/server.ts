import { once } from 'node:events'
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { defer, type Observable, Subscription } from 'rxjs'
import { failure } from '../finding.ts'
import type { Request, Response } from './protocol.ts'

/** What answers a request, one line for each value. */
export type Answer = (request: Request) => Observable<unknown>

/** Bytes that may wait for somebody who asks and does not read. */
const pendingLimit = 1_000_000

/** How long those who asked may take to read the last of it, once we end. */
const farewellMs = 200

/** How often to look whether somebody who will ask nothing more is there at all. */
const probeMs = 1_000

/** Answers requests on a socket of ours that only our own user, and root, can reach. */
export async function serve(path: string, answer: Answer): Promise<AsyncDisposable> {
  const clients = new Set<Socket>()
  // Half open: who has said all, as nc -N does, still hears the answer.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    clients.add(socket)
    socket.once('close', () => clients.delete(socket))
    attend(socket, answer)
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

function attend(socket: Socket, answer: Answer): void {
  const running = new Subscription()
  let asked = false
  // A client that is gone needs no answer, and is no reason to end. readline takes its own listener away when input ends.
  socket.on('error', () => {}).once('close', () => running.unsubscribe())
  createInterface({ input: socket })
    .on('line', (line) => {
      asked = true
      running.add(reply(socket, line, answer))
    })
    // It repeats the errors of its input.
    .on('error', () => {})
    .once('close', () => {
      if (asked) running.add(probe(socket))
      else socket.end()
    })
}

function reply(socket: Socket, line: string, answer: Answer): Subscription {
  const write = (response: Response) => {
    if (socket.writable) socket.write(`${JSON.stringify(response)}\n`)
  }
  return defer(() => answer(JSON.parse(line) as Request)).subscribe({
    // Who does not read misses some, rather than filling our memory.
    next: (value) => socket.writableLength > pendingLimit || write({ answer: value }),
    error: (error: unknown) => {
      write({ error: failure(error) })
      socket.end()
    },
    complete: () => socket.end(),
  })
}

/**
 * Who has said all and who has gone look alike until we write, and a trace of a quiet destination would go on for nobody. A
 * space before the next line is what readers of JSON skip.
 */
function probe(socket: Socket): () => void {
  const write = () => {
    if (socket.writable && socket.writableLength === 0) socket.write(' ')
  }
  write()
  const timer = setInterval(write, probeMs)
  return () => clearInterval(timer)
}
