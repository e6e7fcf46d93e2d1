/**
 * The ways a connection can take, by the last part of the origin's address, which is the same text in both families:
 * 203.0.113.12 and 2001:db8:2::12 are `local`.
 */
export const ways = {
  /** To its destination. */
  direct: 10,
  /** Through streams of a plugin, which the process has to carry. */
  changed: 11,
  /** Through a SOCKS server on this host. */
  local: 12,
  /** Through one on the network. */
  remote: 13,
  /** Through an HTTP proxy. */
  http: 14,
  /** Through another SOCKS server. */
  dante: 15,
  /** Not intercepted, by a rule. */
  outside: 16,
} as const

export type Way = keyof typeof ways
export const allWays = Object.keys(ways) as Way[]

/** Those that never leave from an address of the client: the upstream is on another host. */
export const hidden: readonly Way[] = ['remote', 'http', 'dante']

export const upstreams = {
  local: 'socks5://127.0.0.1:1080',
  remote: 'socks5://198.51.100.1:1081',
  http: 'http://198.51.100.1:8888',
  dante: 'socks5://198.51.100.1:1082',
} as const

export function addressOf(way: Way, family: 4 | 6): string {
  return family === 4 ? `203.0.113.${ways[way]}` : `2001:db8:2::${ways[way]}`
}
