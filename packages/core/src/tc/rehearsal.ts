import { on, once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { type Fastpath, type FastpathCounters, type FlowKey, unread } from '@tproxy/bpf'
import { addressBytes } from '../endpoint.ts'

/** It takes 5 ms. */
const deadlineMs = 2_000

/**
 * Tries the fastpath on a connection of our own over loopback, with the real reader: order, redirection, the bound, the end,
 * and what the program's end can still do. Throws what is not as it must be.
 */
export async function rehearse(fastpath: Fastpath, mode: 'to-proxy' | 'both'): Promise<void> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true })
  const sockets: Socket[] = []
  const signal = AbortSignal.timeout(deadlineMs)
  try {
    server.listen(0, '127.0.0.1')
    await once(server, 'listening', { signal })
    const { port } = server.address() as AddressInfo
    const program = connect({ port, host: '127.0.0.1', allowHalfOpen: true }).pause()
    sockets.push(program)
    const [[ours]] = (await Promise.all([
      once(server, 'connection', { signal }),
      once(program, 'connect', { signal }),
    ])) as [[Socket], unknown]
    sockets.push(ours)
    await play({ fastpath, mode, program, ours, signal })
  } finally {
    for (const socket of sockets) socket.resetAndDestroy()
    server.close()
  }
}

interface Stage {
  readonly fastpath: Fastpath
  readonly mode: 'to-proxy' | 'both'
  readonly program: Socket
  readonly ours: Socket
  readonly signal: AbortSignal
}

async function play({ fastpath, mode, program, ours, signal }: Stage): Promise<void> {
  const key = keyOf(program)
  const counted = counter(fastpath)
  fastpath.record(key, descriptor(program))
  await send(program, 'first')
  expect(fastpath.join(key, descriptor(ours)), 'its sockets are not found')
  await send(program, 'second')
  expect(counted('redirected') === 0, 'what comes later would be read first')
  expect((await read(ours, 11, signal)) === 'firstsecond', 'bytes are lost or out of order')
  await send(program, 'third')
  expect(counted('redirected') === 1, 'nothing is redirected')
  expect((await read(ours, 5, signal)) === 'third', 'redirected bytes are lost')

  const chunk = Buffer.alloc(16_384, 'x')
  for (let sent = 0; sent < 64; sent++) program.write(chunk)
  expect(counted('unread') > 0, 'redirected bytes are not counted (since Linux 6.13)')
  program.end('end')
  const all = await read(ours, 64 * chunk.length + 3, signal)
  expect(all === `${'x'.repeat(64 * chunk.length)}end`, 'bytes are lost or out of order')
  expect(ours.readableEnded || (await ended(ours, signal)), 'the end is lost')

  if (mode === 'both') return
  await send(ours, 'answer')
  expect(unread(descriptor(program)) === 6, 'programs that ask how much they can read (FIONREAD) hear 0')
}

/** Resolves when the kernel has it. */
const send = (socket: Socket, text: string) =>
  new Promise<void>((resolve, reject) => {
    socket.write(text, (error) => (error ? reject(error) : resolve()))
  })

/** Reads until it has so many bytes. */
async function read(socket: Socket, length: number, signal: AbortSignal): Promise<string> {
  let text = ''
  const chunks = on(socket, 'data', { signal })
  socket.resume()
  for await (const [chunk] of chunks) {
    text += chunk
    if (text.length >= length) break
  }
  socket.pause()
  return text
}

async function ended(socket: Socket, signal: AbortSignal): Promise<boolean> {
  socket.resume()
  await once(socket, 'end', { signal })
  return true
}

function counter(fastpath: Fastpath): (name: keyof FastpathCounters) => number {
  const before = fastpath.counters()
  return (name) => Number(fastpath.counters()[name] - before[name])
}

function expect(met: boolean, problem: string): void {
  if (!met) throw new Error(`this kernel does not do it right: ${problem}`)
}

const descriptor = (socket: Socket) => (socket as unknown as { _handle: { fd: number } })._handle.fd

function keyOf(program: Socket): FlowKey {
  const { localAddress = '', localPort = 0, remoteAddress = '', remotePort = 0 } = program
  return {
    source: addressBytes(localAddress),
    destination: addressBytes(remoteAddress),
    sourcePort: localPort,
    destinationPort: remotePort,
  }
}
