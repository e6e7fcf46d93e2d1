import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { type Destination, formatEndpoint } from '@tproxy/core'
import { failure, type Way } from './dial.ts'
import { exchanger } from './exchange.ts'
import { ProxyAgent } from './proxy-agent.ts'
import { type Authority, replay, requestHead } from './request-head.ts'

/** An intercepted connection that has turned out to speak plain HTTP. */
export interface Client {
  /** Our end of the connection. */
  readonly stream: Duplex
  readonly destination: Destination
  /** Resets the client. */
  readonly fail: (error: Error) => void
  /** Hands the connection over to a tunnel, which first gets what was already read. */
  readonly tunnel: (read: Buffer) => void
}

interface Connection extends Client {
  readonly agent: ProxyAgent
  /** Settled when the requests so far have been answered. */
  turn: Promise<void>
  unanswered: number
}

/**
 * Returns what serves plain HTTP connections: each request goes to the proxy in absolute form, bodies stream both ways,
 * and nothing is ever answered by us. A request to switch protocols turns the connection into a tunnel.
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
    const refuse = (why: string): void =>
      connection.fail(failure(`HTTP request to ${formatEndpoint(connection.destination)}`, new Error(why)))
    if (request.socket.writableEnded) return refuse('it came after the last response of its connection')
    const head = requestHead(request, connection.destination, authority)
    if (!head) return refuse('its target is neither a path nor an http URL')
    const { agent, fail } = connection
    // Pipelined requests go one after the other: their order may matter (RFC 9112, 9.3.2).
    connection.unanswered++
    connection.turn = connection.turn.then(async () => {
      await exchange({ request, response, head, expectsContinue, agent, fail })
      connection.unanswered--
    })
  }
  server.on('request', serve).on('checkExpectation', serve)
  server.on('checkContinue', (request, response) => serve(request, response, true))

  const switchOver = (request: IncomingMessage, stream: Duplex, head: Buffer): void => {
    const connection = connections.get(stream)
    if (!connection) return
    if (connection.unanswered > 0) {
      const cause = new Error('it asks for another protocol before the last request was answered')
      connection.fail(failure(`HTTP request to ${formatEndpoint(connection.destination)}`, cause))
    } else {
      connection.tunnel(Buffer.concat([replay(request), head]))
    }
  }
  server.on('upgrade', switchOver).on('connect', switchOver)
  server.on('clientError', (cause: Error & { code?: string }, stream) => {
    const connection = connections.get(stream)
    // The last response is out: whatever the client still had to say, an orderly end is on its way.
    if (!connection || stream.writableEnded) return
    // A client that stops in a body after the answer to it, as when its Expect was refused, has just ended.
    if (cause.code === 'HPE_INVALID_EOF_STATE' && connection.unanswered === 0) stream.end()
    else connection.fail(failure(`HTTP request to ${formatEndpoint(connection.destination)}`, cause))
  })

  return (client) => {
    const agent = new ProxyAgent(way)
    client.stream.once('close', () => agent.destroy())
    connections.set(client.stream, { ...client, agent, turn: Promise.resolve(), unanswered: 0 })
    server.emit('connection', client.stream)
  }
}
