// The servers of the origin host, each on IPv4 and IPv6, for every way a connection can go. Started by origin.ts.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createHttps } from 'node:https'
import { createServer, type Server, type Socket } from 'node:net'
import { pipeline, Readable } from 'node:stream'
import { chunks } from './stream.ts'

const [certificates = '', halfClosedMs = '1000', dataMs = '30000'] = process.argv.slice(2)

/** One line of JSON per event: what a connection's peer looks like from here, and how it ended. */
function say(event: object): void {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

function report(socket: Socket, port: number): void {
  const address = socket.remoteAddress?.replace(/^::ffff:/, '')
  const peer = { port, address, peerPort: socket.remotePort }
  let error: string | undefined
  let finished = false
  say({ event: 'open', ...peer })
  socket.on('error', (cause: NodeJS.ErrnoException) => {
    error = cause.code
  })
  socket.on('end', () => {
    finished = true
  })
  socket.on('close', () => say({ event: 'close', ...peer, bytes: socket.bytesRead, finished, error }))
}

function listen(server: Server, port: number): Promise<void> {
  server.on('connection', (socket) => report(socket, port))
  return new Promise((resolve) => server.listen({ host: '::', port, backlog: 4096 }, resolve))
}

/** A server for connections whose two directions end one by one. */
function serve(port: number, handle: (socket: Socket) => void): Promise<void> {
  return listen(createServer({ allowHalfOpen: true, noDelay: true }, handle), port)
}

function web(request: IncomingMessage, response: ServerResponse): void {
  const bytes = /^\/bytes\/(\d+)$/.exec(request.url ?? '')?.[1]
  if (request.method === 'PUT') {
    const hash = createHash('sha256')
    request.on('data', (chunk: Buffer) => hash.update(chunk))
    request.on('end', () => response.end(`${hash.digest('hex')}\n`))
  } else if (bytes !== undefined) {
    response.setHeader('content-length', bytes)
    pipeline(Readable.from(chunks(Number(bytes))), response, () => {})
  } else response.end('hello from the origin\n')
}

/** The first line that a client sends. */
function withLine(socket: Socket, use: (line: string) => void): void {
  let text = ''
  const take = (chunk: Buffer) => {
    text += chunk.toString('latin1')
    if (!text.includes('\n')) return
    socket.off('data', take)
    use(text.slice(0, text.indexOf('\n')))
  }
  socket.on('data', take)
}

const tls = { key: readFileSync(`${certificates}/key.pem`), cert: readFileSync(`${certificates}/cert.pem`) }

await Promise.all([
  listen(createHttp(web), 80),
  listen(createHttps(tls, web), 443),
  serve(7, (socket) => socket.pipe(socket)),
  // Speaks first.
  serve(22, (socket) => {
    socket.write('SSH-2.0-rig\r\n')
    socket.pipe(socket)
  }),
  // Answers the end of the client's direction with the hash of all that came before.
  serve(9, (socket) => {
    const hash = createHash('sha256')
    socket.on('data', (chunk: Buffer) => hash.update(chunk))
    socket.on('end', () => socket.end(`${hash.digest('hex')}\n`))
  }),
  serve(19, (socket) => {
    withLine(socket, (line) => pipeline(Readable.from(chunks(Number(line))), socket, () => {}))
    socket.resume()
  }),
  // Resets at the first byte.
  serve(1001, (socket) => socket.once('data', () => socket.resetAndDestroy())),
  // Ends its direction first, and reads on.
  serve(1002, (socket) => {
    socket.end('x'.repeat(1024))
    socket.resume()
  }),
  // After the client's end: nothing for a while, and then some bytes now and then, for long.
  serve(1003, (socket) => {
    socket.resume()
    socket.once('end', () => {
      const from = performance.now() + Number(halfClosedMs)
      const timer = setInterval(() => {
        const ms = performance.now() - from
        if (ms > Number(dataMs)) {
          clearInterval(timer)
          socket.end('the end')
        } else if (ms > 0) socket.write('tick\n')
      }, 250)
      socket.once('close', () => clearInterval(timer))
    })
  }),
  // Says nothing and reads nothing.
  serve(1005, (socket) => socket.pause()),
])
say({ event: 'ready' })
