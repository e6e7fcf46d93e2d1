// The internet: servers on both families, as a test needs them. Prints a JSON line for each connection and how it ended.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer as createHttp, type RequestListener } from 'node:http'
import { createServer as createHttps } from 'node:https'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'

const say = (event: string, fields: object = {}) => console.log(JSON.stringify({ event, ...fields }))

/** `GET /bytes/N`, `PUT` → SHA-256 of the body, anything else → who is asking. */
const web: RequestListener = (request, response) => {
  const size = /^\/bytes\/(\d+)$/.exec(request.url ?? '')?.[1]
  if (request.method === 'PUT') {
    const hash = createHash('sha256')
    request
      .on('data', (chunk: Buffer) => hash.update(chunk))
      .once('end', () => response.end(`${hash.digest('hex')}\n`))
  } else if (size !== undefined) response.end(Buffer.alloc(Number(size), 'x'))
  else response.end(`${request.method} ${request.url} from ${request.socket.remoteAddress}\n`)
}

/** Writes `size` bytes that anybody can make again: the block number, as text of 16 characters, over and over. */
function pour(socket: Socket, size: number): void {
  const block = 1 << 16
  let sent = 0
  const write = () => {
    while (sent < size) {
      const part = Buffer.alloc(Math.min(block, size - sent), String(sent / block).padStart(15, '0') + '\n')
      sent += part.length
      if (!socket.write(part)) {
        socket.once('drain', write)
        return
      }
    }
    socket.end()
  }
  write()
}

const services: Record<number, (socket: Socket) => void> = {
  7: (socket) => void socket.pipe(socket),
  // Answers with the SHA-256 and the length of everything up to the client's FIN.
  9: (socket) => {
    const hash = createHash('sha256')
    let length = 0
    socket.on('data', (chunk) => {
      hash.update(chunk)
      length += chunk.length
    })
    socket.once('end', () => socket.end(`${hash.digest('hex')} ${length}\n`))
  },
  // A line with a number of bytes, then so many.
  19: (socket) => void socket.once('data', (line) => pour(socket, Number(line.toString()))),
  22: (socket) => {
    socket.write('SSH-2.0-rig\r\n')
    socket.pipe(socket)
  },
  // Resets at the first byte.
  1001: (socket) => void socket.once('data', () => socket.resetAndDestroy()),
  // Says all it has to say and then listens for as long as the client speaks.
  1002: (socket) => {
    let length = 0
    socket.on('data', (chunk) => {
      length += chunk.length
    })
    socket.once('end', () => say('listened', { length, fromPort: socket.remotePort }))
    socket.end('x'.repeat(1024))
  },
  // Reads to the client's FIN, then speaks for as many seconds as the client's first line says.
  1003: (socket) => {
    let text = ''
    socket.setEncoding('utf8').on('data', (chunk) => {
      text += chunk
    })
    socket.once('end', () => {
      let left = Number.parseInt(text, 10)
      const timer = setInterval(() => {
        if (left-- > 0) socket.write('tick\n')
        else {
          clearInterval(timer)
          socket.end('done\n')
        }
      }, 1000)
    })
  },
  // Closes first, at once.
  1004: (socket) => void socket.end('bye').resume(),
  // Never reads.
  1005: (socket) => void socket.pause(),
}

const directory = mkdtempSync(`${tmpdir()}/rig-`)
execFileSync(
  'openssl',
  [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
    ...[
      '-subj',
      '/CN=origin.test',
      '-addext',
      'subjectAltName=DNS:origin.test,IP:203.0.113.10,IP:2001:db8:2::10',
    ],
    ...['-keyout', `${directory}/key`, '-out', `${directory}/cert`],
  ],
  { stdio: 'ignore' },
)
const tls = { key: readFileSync(`${directory}/key`), cert: readFileSync(`${directory}/cert`) }
rmSync(directory, { recursive: true })

const quiet = process.argv.includes('--quiet')
function serve(port: number, server: Server): Promise<void> {
  server.on('connection', (socket: Socket) => {
    const { remoteAddress, remotePort } = socket
    const from = { from: remoteAddress?.replace('::ffff:', ''), fromPort: remotePort, port }
    if (!quiet) say('connection', from)
    socket.on('error', (error: NodeJS.ErrnoException) => say('error', { ...from, code: error.code }))
  })
  return new Promise((resolve) => server.listen({ port, host: '::', backlog: 4096 }, resolve))
}

await Promise.all([
  serve(80, createHttp(web)),
  serve(443, createHttps(tls, web)),
  ...Object.entries(services).map(([port, service]) =>
    serve(Number(port), createServer({ allowHalfOpen: true, noDelay: true }, service)),
  ),
])
console.log('ready')
