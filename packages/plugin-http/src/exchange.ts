import type { Agent, ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
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
 * `http-proxy` carries the bodies; the heads are ours. Three of its habits do harm here:
 *
 * - It joins the target's path and the request's, and folds `//` into `/` doing so: the path is set on the request.
 * - It gives DELETE and OPTIONS without a length a `content-length: 0` and drops their `transfer-encoding`, so that a
 *   chunked body becomes a second request. Frozen headers do not let it.
 * - It neither notices that the proxy breaks off a response, nor stops when the client goes away.
 *
 * It is no longer maintained; httpxy and http-proxy-3 have the same interface without the leak.
 */
export function exchanger(way: Way): (exchange: Exchange) => Promise<void> {
  const exchanges = new WeakMap<IncomingMessage, Exchange>()
  const step = `plain HTTP through ${way.proxy.name}`
  const proxy = createProxyServer({ toProxy: true, preserveHeaderKeyCase: true })

  // Emitted with the socket, before the first byte goes out.
  proxy.on('proxyReq', (toProxy, request, response) => {
    const exchange = exchanges.get(request)
    if (!exchange) return
    toProxy.path = exchange.head.target
    if (way.proxy.authorization !== undefined)
      toProxy.setHeader('Proxy-Authorization', way.proxy.authorization)
    if (exchange.expectsContinue) {
      toProxy.on('continue', () => response.writeContinue())
      // Among the headers given to http-proxy it would send the head before we have had our say.
      toProxy.setHeader('Expect', '100-continue')
      toProxy.flushHeaders()
    }
    // Without a listener node closes its connection to the proxy and says nothing.
    toProxy.on('upgrade', ({ statusCode }, socket) => {
      socket.destroy()
      exchange.fail(failure(step, new Error(`the proxy answered ${statusCode} unasked`)))
    })
    // Ahead of the listener that ends the request: http-proxy's pipe has added its own already.
    request.prependOnceListener('end', () => toProxy.addTrailers(request.trailers as Record<string, string>))
    response.once('close', () => finish(exchange, toProxy))
    if (response.closed) finish(exchange, toProxy)
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

    // These were about the connection to the proxy. (For HTTP/1.0 clients http-proxy closes, whatever we say.)
    delete fromProxy.headers['keep-alive']
    delete fromProxy.headers['proxy-connection']
    fromProxy.headers.connection = response.shouldKeepAlive ? 'keep-alive' : 'close'
    response.sendDate = false
    // Ahead of the listener that http-proxy's pipe adds, which ends the response.
    fromProxy.once('end', () => response.addTrailers(fromProxy.trailers as Record<string, string>))
  })

  proxy.on('error', (error, request) => {
    const exchange = exchanges.get(request)
    // What we destroy ourselves, once the answer is out, comes by here as well.
    if (exchange && !exchange.response.closed) exchange.fail(failure(step, error))
  })

  return (exchange) => {
    const { request, response, head, agent } = exchange
    const { promise, resolve } = Promise.withResolvers<void>()
    if (response.closed || request.destroyed) return Promise.resolve()
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

/** Of 50 requests whose client went away, http-proxy alone left 50 running. */
function finish({ request }: Exchange, toProxy: ClientRequest): void {
  toProxy.destroy()
  // An answer that came before the end of the upload does not end the client's connection: the rest is read, for nobody.
  if (!request.complete && !request.destroyed) request.unpipe().resume()
}
