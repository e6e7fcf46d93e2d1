import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer as createHttp, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createHttps } from 'node:https'
import { connect, createServer as createTcp, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { LocalServer } from '../../../test/local/server.ts'

/** A TCP server that does what a script says with each connection. */
export function scripted(
  script: (socket: Socket) => void | Promise<void>,
  host?: string,
): Promise<LocalServer> {
  const server = createTcp({ allowHalfOpen: true, noDelay: true }, (socket) => {
    void (async () => script(socket))().catch(() => {})
  })
  return LocalServer.listen(server, host)
}

/** The head of a request, read from a socket that has sent nothing else yet. */
export async function readHead(socket: Socket): Promise<string> {
  let text = ''
  while (!text.includes('\r\n\r\n')) {
    const chunk = socket.read() as Buffer | null
    if (chunk) text += chunk.toString('latin1')
    else await once(socket, 'readable')
  }
  return text
}

/** What an HTTP proxy under test does: `origin` answers forwarded requests, `tunnels` is where CONNECT leads. */
export interface ProxyBehaviour {
  readonly origin?: RequestListener
  readonly tunnels?: number
  readonly tls?: { key: Buffer; cert: Buffer }
  /** Sees the request line and the headers of every request. */
  readonly log?: string[]
}

/** An HTTP proxy that never leaves this host. */
export function proxyServer({ origin, tunnels, tls, log = [] }: ProxyBehaviour): Promise<LocalServer> {
  const server = tls ? createHttps({ ...tls, allowHalfOpen: true }) : createHttp()
  const note = ({ method, url, rawHeaders }: IncomingMessage): void => {
    const headers = rawHeaders.flatMap((name, index) =>
      index % 2 ? [] : [`${name}: ${rawHeaders[index + 1]}`],
    )
    log.push([`${method} ${url}`, ...headers].join('\n'))
  }
  const answer: RequestListener = (request, response) => {
    note(request)
    if (origin) origin(request, response)
    else response.writeHead(403).end()
  }
  server.on('tlsClientError', (_, socket: Socket) => socket.destroy())
  server.on('request', answer)
  server.on('checkContinue', answer)
  server.on('connect', (request, client: Duplex, head: Buffer) => {
    note(request)
    if (tunnels === undefined) return client.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    const onward = connect({ port: tunnels, host: '127.0.0.1', allowHalfOpen: true })
    client.on('error', () => onward.destroy()).on('close', () => onward.destroy())
    onward.on('error', () => client.destroy())
    onward.once('connect', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n')
      if (head.length > 0) onward.write(head)
      client.pipe(onward).pipe(client)
    })
  })
  return LocalServer.listen(server)
}

/** A certificate for localhost and 127.0.0.1 that nobody else trusts. */
export function certificate(): { key: Buffer; cert: Buffer } {
  const folder = mkdtempSync(join(tmpdir(), 'tproxy-test-'))
  try {
    const [key, cert] = [join(folder, 'key'), join(folder, 'cert')]
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1']
    execFileSync('openssl', ['req', '-x509', ...kind, ...subject, '-keyout', key, '-out', cert], {
      stdio: 'pipe',
    })
    return { key: readFileSync(key), cert: readFileSync(cert) }
  } finally {
    rmSync(folder, { recursive: true })
  }
}
