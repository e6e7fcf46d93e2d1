import type { SocksProxy } from './proxy-url.ts'

// The names the library gives to the reply codes of RFC 1928, section 6, and of SOCKS4.
const replies: Readonly<Record<string, string>> = {
  Failure: 'general failure at the proxy',
  NotAllowed: "not allowed by the proxy's rules",
  NetworkUnreachable: 'network unreachable from the proxy',
  HostUnreachable: 'host unreachable from the proxy',
  ConnectionRefused: 'connection refused by the destination',
  TTLExpired: 'TTL expired on the way from the proxy',
  CommandNotSupported: 'the proxy does not support CONNECT',
  AddressNotSupported: 'the proxy does not support this address family',
  Failed: 'rejected by the proxy, or the destination failed',
  Rejected: 'rejected: the proxy found no identd at this host',
  RejectedIdent: 'rejected: identd names another user',
}

const notOffered = 'the proxy chose a way to authenticate that was not offered'

/** Says what a library error means, without anything the library attached to it. */
export function refusal(
  { message }: { readonly message: string },
  proxy: SocksProxy,
  reply: readonly number[],
): Error {
  if (message.includes('invalid socks version')) return new Error(`the answer is not SOCKS${proxy.version}`)
  if (message.includes('no accepted authentication type'))
    return new Error(
      proxy.user === undefined
        ? 'the proxy wants a user name and password'
        : 'the proxy accepts none of our ways to authenticate',
    )
  if (message.includes('Authentication failed'))
    return new Error('the proxy does not accept the user name and password')
  if (message.includes('unknown authentication type')) return new Error(notOffered)
  const code = /reject.* - \(?(\w+)\)?$/i.exec(message)?.[1]
  if (code === undefined || !(proxy.version === 4 ? isSocks4(reply) : reply[0] === 5))
    return new Error('the proxy sent a malformed reply')
  return new Error(replies[code] ?? 'refused by the proxy with an unassigned code')
}

/** The library sends an empty user name to a proxy that chooses user and password, whether it has offered them or not. */
export function unoffered({ version, user }: SocksProxy, replies: readonly number[]): Error | undefined {
  const chosen = replies.length === 2 && replies[0] === 5 && replies[1] === 2
  if (version === 4 || user !== undefined || !chosen) return undefined
  return new Error(`${notOffered}: user name and password`)
}

/** The library takes replies of an unknown address type, and SOCKS4 replies of any version, for granted. */
export function malformed({ version }: SocksProxy, reply: readonly number[]): Error | undefined {
  const valid = version === 4 ? isSocks4(reply) : [1, 3, 4].includes(reply[3] ?? 0)
  return valid ? undefined : new Error('the proxy sent a malformed reply')
}

/** The SOCKS4 memo wants zero as the version of a reply; some servers answer with the protocol's number. */
function isSocks4([version]: readonly number[]): boolean {
  return version === 0 || version === 4
}
