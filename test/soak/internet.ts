// Runs in the internet: HTTP on port 8080 of all addresses, for programs that check what they get.
//   GET /stream/N     N bytes of rig/stream.ts
//   PUT               the SHA-256 of the body
//   /git/…            what `git http-backend` answers
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { chunks } from '../rig/stream.ts'

const repositories = process.argv[2] ?? ''

async function git(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '', 'http://git')
  const backend = spawn('git', ['http-backend'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: {
      ...process.env,
      GIT_PROJECT_ROOT: repositories,
      GIT_HTTP_EXPORT_ALL: '1',
      PATH_INFO: url.pathname.slice('/git'.length),
      QUERY_STRING: url.search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: request.headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
      GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
    },
  })
  response.once('close', () => backend.kill())
  backend.stdin.on('error', () => {})
  request.pipe(backend.stdin)
  // RFC 3875: header lines, an empty one, the body.
  let head = Buffer.alloc(0)
  for await (const chunk of backend.stdout) {
    if (response.headersSent) {
      if (!response.write(chunk))
        await new Promise((resolve) => response.once('drain', resolve).once('close', resolve))
      continue
    }
    head = Buffer.concat([head, chunk as Buffer])
    const end = head.indexOf('\r\n\r\n')
    if (end < 0) continue
    for (const line of head.toString('latin1', 0, end).split('\r\n')) {
      const [name = '', value = ''] = line.split(': ')
      if (name === 'Status') response.statusCode = Number.parseInt(value, 10)
      else response.setHeader(name, value)
    }
    response.write(head.subarray(end + 4))
  }
  response.end()
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const size = /^\/stream\/(\d+)$/.exec(request.url ?? '')?.[1]
  if (request.url?.startsWith('/git/')) await git(request, response)
  else if (request.method === 'PUT') {
    const hash = createHash('sha256')
    await pipeline(request, hash)
    response.end(`${hash.digest('hex')}\n`)
  } else if (size !== undefined) {
    response.setHeader('content-length', size)
    await pipeline(Readable.from(chunks(Number(size))), response)
  } else response.writeHead(404).end()
}

createServer({ keepAliveTimeout: 0, requestTimeout: 0 }, (request, response) => {
  request.socket.setKeepAlive(true, 5_000)
  // Whoever gave up is the other side's to tell.
  answer(request, response).catch(() => response.destroy())
}).listen({ port: 8080, host: '::', backlog: 4096 }, () => console.log('ready'))
