import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { type Destination, formatEndpoint } from '@tproxy/core'
import { failure, type Way } from './dial.ts'
import { exchanger } from './exchange.ts'
import { ProxyAgent } from './proxy-agent.ts'
import { type Authority, replay, requestHead } from './request-head.ts'
import { wantsTunnel } from './upgrade.ts'
import type { Valve } from './valve.ts'

/** An intercepted connection that has turned out to speak plain HTTP. */
export interface Client {
  /** Our end of the connection. */
  readonly stream: Duplex
  /** Holds back what the client sends. */
  readonly valve: Valve
  readonly destination: Destination
  /** Resets the client. */
  readonly fail: (error: Error) => void
  /** Hands the connection over to a tunnel. */
  readonly tunnel: () => void
}

interface Connection extends Client {
  readonly agent: ProxyAgent
  /** Settled when the requests so far have been answered. */
  turn: Promise<void>
  unanswered: number
  /** The response to the last request. */
  last?: ServerResponse
}

// More than clients that pipeline send ahead; apt sends ten. With one, a request whose body is still to come would get no answer.
const mostUnanswered = 32

const late = new Error('it came after the last response of its connection')

function refuse({ fail, destination }: Client, cause: Error): void {
  fail(failure(`HTTP request to ${formatEndpoint(destination)}`, cause))
}

/**
 * Returns what serves plain HTTP connections: each request goes to the proxy in absolute form, bodies stream both ways,
 * and nothing is ever answered by us. A request to switch protocols turns the connection into a tunnel, unless it is one
 * that HTTP itself can do without.
 */
export function forwarder(way: Way, authority: Authority): (client: Client) => void {
  const connections = new WeakMap<Duplex, Connection>()
  const exchange = exchanger(way)
  // The parser and the bookkeeping of node's server, without its opinions: no timeouts, no answers of its own.
  const server = createServer({
    requireHostHeader: false,
    keepAliveTimeout: 0,
    headersTimeout: 0,
    requestTimeout: 0,
  })
  // A client may end its side after the request and still wait for the answer.
  Object.assign(server, { httpAllowHalfOpen: true })

  const serve = (request: IncomingMessage, response: ServerResponse, expectsContinue = false): void => {
    const connection = connections.get(request.socket)
    if (!connection) return
    if (request.socket.writableEnded) return refuse(connection, late)
    const head = requestHead(request, connection.destination, authority)
    if (!head) return refuse(connection, new Error('its target is neither a path nor an http URL'))
    const { agent, fail, valve } = connection
    connection.last = response
    if (++connection.unanswered >= mostUnanswered) valve.shut()
    // Pipelined requests go one after the other: their order may matter (RFC 9112, 9.3.2).
    connection.turn = connection.turn.then(async () => {
      await exchange({ request, response, head, expectsContinue, agent, fail })
      if (--connection.unanswered < mostUnanswered) valve.open()
    })
  }
  server.on('request', serve).on('checkExpectation', serve)
  server.on('checkContinue', (request, response) => serve(request, response, true))

  const switchOver = (request: IncomingMessage, stream: Duplex, head: Buffer): void => {
    const connection = connections.get(stream)
    if (!connection) return
    const { unanswered, last } = connection
    // A response that is written may not have been closed yet when a quick client goes on.
    if (unanswered > 1 || (unanswered === 1 && !last?.writableEnded))
      return refuse(
        connection,
        new Error('it asks for another protocol before the last request was answered'),
      )
    const tunnelled = wantsTunnel(request)
    stream.unshift(Buffer.concat([replay(request, tunnelled ? [] : ['upgrade']), head]))
    const goOn = (): void => {
      if (stream.destroyed) return
      if (stream.writableEnded) return refuse(connection, late)
      if (tunnelled) return connection.tunnel()
      // node's server leaves these behind (24.21), and is to begin anew.
      stream.removeAllListeners('pause').removeAllListeners('resume')
      server.emit('connection', stream)
    }
    if (unanswered === 0) goOn()
    else connection.turn = connection.turn.then(goOn)
  }
  server.on('upgrade', switchOver).on('connect', switchOver)
  server.on('clientError', (cause: Error & { code?: string }, stream) => {
    const connection = connections.get(stream)
    // The last response is out: whatever the client still had to say, an orderly end is on its way.
    if (!connection || stream.writableEnded) return
    // A client that stops in a body after the answer to it, as when its Expect was refused, has just ended.
    if (cause.code === 'HPE_INVALID_EOF_STATE' && connection.unanswered === 0) stream.end()
    else refuse(connection, cause)
  })

  return (client) => {
    const agent = new ProxyAgent(way)
    client.stream.once('close', () => agent.destroy())
    connections.set(client.stream, { ...client, agent, turn: Promise.resolve(), unanswered: 0 })
    server.emit('connection', client.stream)
  }
}
