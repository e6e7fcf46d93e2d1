import { isIP, isIPv6 } from 'node:net'
import { TproxyError } from '@tproxy/core'

/** An HTTP proxy. `authorization` leaves this object only in the `Proxy-Authorization` header. */
export interface HttpProxy {
  /** Whether the way to the proxy itself is TLS. */
  readonly secure: boolean
  /** Host name or address; IPv6 without brackets. */
  readonly host: string
  readonly port: number
  /** The value of `Proxy-Authorization` (RFC 7617), when the URL has credentials. */
  readonly authorization?: string
  /** `http://192.0.2.1:3128`: what logs and errors may show. */
  readonly name: string
}

const syntax = 'write http://user:password@host:port, with special characters in user and password as %XX'

/**
 * Parses a proxy URL; without a scheme it is taken as `http://`. Throws `E_OPTION`, which names `what` the URL is for.
 *
 * No message repeats the text it was given: what does not parse may well be a password that was not percent-encoded.
 */
export function parseProxy(text: string, what = 'HTTP proxy'): HttpProxy {
  const refuse = (problem: string, hint: string): never => {
    throw new TproxyError('E_OPTION', `${what}: ${problem}`, { hint })
  }
  if (typeof text !== 'string') refuse('no URL is given', syntax)
  const trimmed = text.trim()
  if (trimmed === '') refuse('the URL is empty', syntax)
  // The parser's own error quotes the input: it must not become our cause.
  const url =
    URL.parse(trimmed.includes('://') ? trimmed : `http://${trimmed}`) ??
    refuse('the URL does not parse', syntax)
  if (!['http:', 'https:'].includes(url.protocol)) refuse('the scheme is not HTTP', 'use http:// or https://')
  if (url.search !== '' || url.hash !== '' || url.pathname !== '/')
    refuse('the URL has a path, query or fragment', syntax)
  const secure = url.protocol === 'https:'
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1')
  if (isIP(host) === 0 && !/^[a-z0-9_]([a-z0-9._-]*[a-z0-9_.])?$/i.test(host))
    refuse('the host is neither a name nor an address', syntax)
  const port = url.port === '' ? (secure ? 443 : 80) : Number(url.port)
  if (port === 0) refuse('the port is 0', 'ports are 1 to 65535')

  const user = decode(url.username) ?? refuse('the user name is not valid percent-encoding', 'write % as %25')
  const password =
    decode(url.password) ?? refuse('the password is not valid percent-encoding', 'write % as %25')
  if (user.includes(':'))
    refuse('the user name has a colon', 'Basic authentication cannot carry it (RFC 7617, 2)')
  return {
    secure,
    host,
    port,
    ...(user === '' && password === ''
      ? {}
      : { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` }),
    name: `${url.protocol}//${isIPv6(host) ? `[${host}]` : host}:${port}`,
  }
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
