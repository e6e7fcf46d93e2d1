import type { Agent, ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import { answerHead } from './answer-head.ts'
import { credentialsHint, failure, type Way } from './dial.ts'
import { createProxyServer } from './http-proxy.ts'
import type { RequestHead } from './request-head.ts'

/** One request of a client and the response to it. */
export interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly head: RequestHead
  /** Whether the client waits for a 100 before it sends the body (RFC 9110, 10.1.1). */
  readonly expectsContinue: boolean
  readonly agent: Agent
  /** Resets the client. */
  readonly fail: (error: Error) => void
}

/**
 * Returns what sends a request to the proxy and its response to the client, and resolves when that is over, either way.
 *
 * `http-proxy` carries the request's body; the heads are ours, and the answer's body follows its head. Five of its habits
 * do harm here:
 *
 * - It joins the target's path and the request's, and folds `//` into `/` doing so: the path is set on the request.
 * - It gives DELETE and OPTIONS without a length a `content-length: 0` and drops their `transfer-encoding`, so that a
 *   chunked body becomes a second request. Frozen headers do not let it.
 * - It neither notices that the proxy breaks off a response, nor stops when the client goes away.
 * - It copies the answer's head as it came, and `Trailer` without chunks, a status below 100 or a control character in the
 *   reason phrase make node throw.
 * - It leaves it to the first byte of a body to write the head before it, where nobody catches what node throws.
 *
 * So both heads are written here, within what catches and fails the one exchange; what follows a head does not throw.
 *
 * It is no longer maintained; httpxy and http-proxy-3 have the same interface without the leak.
 */
export function exchanger(way: Way): (exchange: Exchange) => Promise<void> {
  const exchanges = new WeakMap<IncomingMessage, Exchange>()
  const step = `plain HTTP through ${way.proxy.name}`
  const proxy = createProxyServer({ toProxy: true, selfHandleResponse: true })

  /** Does what may throw because of what a peer has sent; nobody else would catch it. */
  const attempt = ({ fail }: Exchange, act: () => void): void => {
    try {
      act()
    } catch (cause) {
      fail(failure(step, cause))
    }
  }

  // Emitted with the socket, before the first byte goes out.
  proxy.on('proxyReq', (toProxy, request, response) => {
    const exchange = exchanges.get(request)
    if (!exchange) return
    if (exchange.expectsContinue)
      toProxy.on('continue', () => attempt(exchange, () => response.writeContinue()))
    // Without a listener node closes its connection to the proxy and says nothing.
    toProxy.on('upgrade', ({ statusCode }, socket) => {
      socket.destroy()
      exchange.fail(failure(step, new Error(`the proxy answered ${statusCode} unasked`)))
    })
    // Ahead of the listener that ends the request: http-proxy's pipe has added its own already.
    request.prependOnceListener('end', () =>
      attempt(exchange, () => toProxy.addTrailers(request.trailers as Trailers)),
    )
    response.once('close', () => finish(exchange, toProxy))
    attempt(exchange, () => writeHead(exchange, toProxy, way))
    // What has no head yet would try again to write it with the body or its end, outside of the attempt.
    if (response.closed || !toProxy.headersSent) finish(exchange, toProxy)
  })

  proxy.on('proxyRes', (fromProxy, request, response) => {
    const exchange = exchanges.get(request)
    if (!exchange) return
    // node says no more than "aborted" about a response that breaks off; its close says the same, and is certain.
    fromProxy.on('error', () => {})
    fromProxy.on('close', () => {
      if (!fromProxy.complete) exchange.fail(failure(step, new Error('the proxy cut the response short')))
    })
    // No origin server asks for this, and no client that does not know of the proxy can answer it.
    const hint = credentialsHint(fromProxy.statusCode, way.proxy)
    if (hint !== undefined) return exchange.fail(failure(step, new Error('the proxy answered 407'), hint))

    attempt(exchange, () => {
      const { status, phrase, headers } = answerHead(fromProxy, request, response.shouldKeepAlive)
      response.sendDate = false
      response.writeHead(status, phrase, headers)
      // Ahead of the listener that the pipe adds, which ends the response.
      fromProxy.once('end', () =>
        attempt(exchange, () => response.addTrailers(fromProxy.trailers as Trailers)),
      )
      fromProxy.pipe(response)
    })
  })

  proxy.on('error', (error, request) => {
    const exchange = exchanges.get(request)
    // What we destroy ourselves, once the answer is out, comes by here as well.
    if (exchange && !exchange.response.closed) exchange.fail(failure(step, error))
  })

  return (exchange) => {
    const { request, response, head, agent } = exchange
    const { promise, resolve } = Promise.withResolvers<void>()
    // Of a client that went away after it had asked for another protocol, node tells the requests nothing (24.21).
    if (response.closed || request.destroyed || request.socket.destroyed) return Promise.resolve()
    response.once('close', resolve)
    exchanges.set(request, exchange)
    request.headers = Object.freeze({ ...head.headers }) as IncomingMessage['headers']
    try {
      proxy.web(request, response, { target: { protocol: 'http:', host: way.proxy.host, port: 80 }, agent })
    } catch (cause) {
      exchange.fail(failure(step, cause))
    }
    return promise
  }
}

type Trailers = Record<string, string>

/** Sends the head of a request, before its body makes node do so. */
function writeHead({ head, expectsContinue }: Exchange, toProxy: ClientRequest, { proxy }: Way): void {
  toProxy.path = head.target
  if (proxy.authorization !== undefined) toProxy.setHeader('Proxy-Authorization', proxy.authorization)
  // Among the headers given to http-proxy it would send the head before we have had our say.
  if (expectsContinue) toProxy.setHeader('Expect', '100-continue')
  // Such a request has no body (RFC 9112, 6.3), which node, not knowing its end yet, would send in chunks.
  const framed = toProxy.hasHeader('Content-Length') || toProxy.hasHeader('Transfer-Encoding')
  if (!framed && toProxy.useChunkedEncodingByDefault) toProxy.setHeader('Content-Length', '0')
  // Not flushHeaders: it sends é as UTF-8 (24.21), and a packet of its own.
  toProxy.write('', 'latin1')
}

/** Of 50 requests whose client went away, http-proxy alone left 50 running. */
function finish({ request }: Exchange, toProxy: ClientRequest): void {
  toProxy.destroy()
  request.unpipe()
  // An answer that came before the end of the upload does not end the client's connection: the rest is read, for nobody.
  if (!request.complete && !request.destroyed) request.resume()
}
