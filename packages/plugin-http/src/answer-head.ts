import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import { isChunked } from './framing.ts'

/** The proxy's answer as the client gets it. */
export interface AnswerHead {
  readonly status: number
  readonly phrase: string
  readonly headers: OutgoingHttpHeaders
}

/**
 * Turns what the proxy answered to `request` into an answer for the client. Throws for a status that is none, of which
 * node's parser passes 000 to 099.
 */
export function answerHead(
  { statusCode: status = 0, statusMessage, headers, rawHeaders }: IncomingMessage,
  { method, httpVersion }: Pick<IncomingMessage, 'httpVersion' | 'method'>,
  keepAlive: boolean,
): AnswerHead {
  if (status < 100)
    throw new Error(`the proxy answered ${String(status).padStart(3, '0')}, which is no status`)
  // HTTP/1.0 knows neither chunks nor, unless both sides say so, connections that last.
  const old = httpVersion !== '1.1'
  const encoding = headers['transfer-encoding']
  const chunked = !old && isChunked(encoding)
  // A body in another encoding than chunks ends with its connection (RFC 9112, 6.3).
  const lasts = keepAlive && !old && (encoding === undefined || chunked)
  const passed: OutgoingHttpHeaders = { ...headers, connection: lasts ? 'keep-alive' : 'close' }
  // These were about the connection to the proxy.
  delete passed['keep-alive']
  delete passed['proxy-connection']
  if (old) delete passed['transfer-encoding']
  // RFC 9110, 6.4.1: no body, so no chunks either. Where none follow, node throws ERR_HTTP_TRAILER_INVALID (24.21).
  if (!chunked || method === 'HEAD' || status === 204 || status === 304) delete passed['trailer']

  const spelled = new Map(
    rawHeaders.filter((_, at) => at % 2 === 0).map((name) => [name.toLowerCase(), name]),
  )
  return {
    status,
    phrase: printable(statusMessage),
    headers: Object.fromEntries(
      Object.entries(passed).map(([name, value]) => [spelled.get(name) ?? name, value]),
    ),
  }
}

/** A reason phrase without what cannot stand in one (RFC 9112, 4); node's parser passes control characters. */
export function printable(phrase = ''): string {
  return phrase.replaceAll(/[^\t\x20-\x7e\x80-\xff]/g, '')
}
