import { isIP, isIPv6 } from 'node:net'
import { TproxyError } from '@tproxy/core'

/** One SOCKS proxy of a chain. The credentials leave this object only inside the handshake. */
export interface SocksProxy {
  readonly version: 4 | 5
  /** Host name or address; IPv6 without brackets. */
  readonly host: string
  readonly port: number
  readonly user?: string
  readonly password?: string
  /** `socks5://192.0.2.1:1080`: what logs and errors may show. */
  readonly name: string
}

// A program has resolved its name before we see it, so socks5h means the same as socks5, and 4a as 4: whether the proxy
// gets a name is for the option `names` to say.
const versions: Readonly<Record<string, 4 | 5>> = {
  'socks:': 5,
  'socks5:': 5,
  'socks5h:': 5,
  'socks4:': 4,
  'socks4a:': 4,
}

const syntax = 'write socks5://user:password@host:port, with special characters in user and password as %XX'

/**
 * Parses the URLs of a chain; a string may name several hops, separated by commas. Throws `E_OPTION`, which names `what` the
 * URLs are for.
 *
 * No message repeats the text it was given: what does not parse may well be a password that was not percent-encoded.
 */
export function parseChain(
  urls: string | readonly string[],
  what = 'SOCKS proxy',
): readonly [SocksProxy, ...SocksProxy[]] {
  const given: unknown = typeof urls === 'string' ? urls.split(',') : urls
  if (!Array.isArray(given) || !given.every((url) => typeof url === 'string'))
    throw new TproxyError('E_OPTION', `${what}: no URL is given`, { hint: syntax })
  const parts = given.map((url) => url.trim())
  const hops = parts.map((url, index) => parse(url, parts.length > 1 ? `${what} ${index + 1}` : what))
  const [first, ...rest] = hops
  if (first === undefined)
    throw new TproxyError('E_OPTION', 'no SOCKS proxy is given', { hint: 'name at least one URL' })
  for (const [index, next] of rest.entries()) {
    if (hops[index]?.version === 4 && isIPv6(next.host))
      throw new TproxyError('E_OPTION', `${what} ${index + 2} has an IPv6 address behind a SOCKS4 proxy`, {
        hint: 'SOCKS4 reaches IPv4 only; use socks5:// for the hop before',
      })
  }
  return [first, ...rest]
}

function parse(text: string, what: string): SocksProxy {
  const refuse = (problem: string, hint: string): never => {
    throw new TproxyError('E_OPTION', `${what}: ${problem}`, { hint })
  }
  if (text === '') refuse('the URL is empty', syntax)
  // The parser's own error quotes the input: it must not become our cause.
  const url = URL.parse(text) ?? refuse('the URL does not parse', syntax)
  if (!text.includes('://')) refuse('the URL has no scheme', syntax)
  const version = versions[url.protocol] ?? refuse('the scheme is not SOCKS', 'use socks5:// or socks4://')
  if (url.search !== '' || url.hash !== '' || !['', '/'].includes(url.pathname))
    refuse('the URL has a path, query or fragment', syntax)

  const host = url.hostname.replace(/^\[(.*)\]$/, '$1')
  if (isIP(host) === 0 && !/^[a-z0-9_]([a-z0-9._-]*[a-z0-9_.])?$/i.test(host))
    refuse('the host is neither a name nor an address', syntax)
  // The library hands the name to the hop before with a length of one byte (RFC 1928, 5).
  if (host.length > 255) refuse('the host name is longer than 255 bytes', 'shorten it')
  const port = url.port === '' ? 1080 : Number(url.port)
  if (port === 0) refuse('the port is 0', 'ports are 1 to 65535')

  const user = decode(url.username) ?? refuse('the user name is not valid percent-encoding', 'write % as %25')
  const password =
    decode(url.password) ?? refuse('the password is not valid percent-encoding', 'write % as %25')
  // RFC 1929, 2: one byte of length. In the library a longer one is an uncaught exception.
  if (Buffer.byteLength(user) > 255)
    refuse('the user name is longer than 255 bytes', 'SOCKS5 cannot carry it')
  if (Buffer.byteLength(password) > 255)
    refuse('the password is longer than 255 bytes', 'SOCKS5 cannot carry it')
  if (version === 4 && password !== '')
    refuse('SOCKS4 has no password', 'leave the password out, or use socks5://')
  if (version === 4 && user.includes('\0'))
    refuse('the user name has a NUL byte', 'SOCKS4 ends it at the first one')
  if (version === 5 && user === '' && password !== '')
    refuse('a password without a user name', 'name the user, as in socks5://user:password@host')

  return {
    version,
    host,
    port,
    ...(user === '' ? {} : { user }),
    ...(password === '' ? {} : { password }),
    name: `socks${version}://${isIPv6(host) ? `[${host}]` : host}:${port}`,
  }
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
