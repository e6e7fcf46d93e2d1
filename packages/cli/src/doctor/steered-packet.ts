import type { Match } from './ruleset.ts'

/**
 * Whether a firewall's match holds for the packet that matters to us: the first of a TCP connection, arriving on lo, from
 * an address of this host to a foreign one. `undefined` where that depends on the connection.
 */
export function matchesSteered({ op, left, right }: Match, family: 4 | 6): boolean | undefined {
  const equal = holds(left, right, family)
  if (equal === undefined) return undefined
  if (op === '!=') return !equal
  return op === '==' || op === 'in' ? equal : undefined
}

function holds(left: Match['left'], right: unknown, family: 4 | 6): boolean | undefined {
  if (typeof left === 'string') return undefined
  if ('meta' in left) return meta((left['meta'] as { key?: string }).key, right, family)
  // The first packet has no connection yet, and it is whole.
  if ('ct' in left)
    return (left['ct'] as { key?: string }).key === 'state' ? includes(right, 'new') : undefined
  if ('fib' in left) return fib(left['fib'] as { result?: string; flags?: string | string[] }, right)
  if ('payload' in left)
    return payload(left['payload'] as { protocol?: string; field?: string }, right, family)
  return undefined
}

function meta(key: string | undefined, right: unknown, family: 4 | 6): boolean | undefined {
  switch (key) {
    case 'iif':
    case 'iifname':
      return includes(right, 'lo')
    case 'iiftype':
      return includes(right, 'loopback')
    case 'l4proto':
      return includes(right, 'tcp') || includes(right, 6)
    case 'nfproto':
      return includes(right, family === 4 ? 'ipv4' : 'ipv6')
    case 'protocol':
      return includes(right, family === 4 ? 'ip' : 'ip6')
    default:
      return undefined
  }
}

/** With lo as the input interface, the route back to our own address does not lead there: the lookup finds nothing. */
function fib(
  { result, flags = [] }: { result?: string; flags?: string | string[] },
  right: unknown,
): boolean | undefined {
  const asked = [flags].flat()
  if (!asked.includes('saddr') || !asked.includes('iif')) return undefined
  if (result === 'oif' || result === 'oifname') return right === false || right === 0 || right === ''
  return undefined
}

function payload(
  { protocol, field }: { protocol?: string; field?: string },
  right: unknown,
  family: 4 | 6,
): boolean | undefined {
  if (protocol === 'ip' && family === 6) return false
  if (protocol === 'ip6' && family === 4) return false
  if (protocol === 'udp' || protocol === 'icmp' || protocol === 'icmpv6') return false
  if (field === 'protocol' || field === 'nexthdr') return includes(right, 'tcp') || includes(right, 6)
  if ((field === 'saddr' || field === 'daddr') && isLoopback(right)) return false
  return undefined
}

function isLoopback(right: unknown): boolean {
  if (typeof right === 'string') return right.startsWith('127.') || right === '::1'
  const address = (right as { prefix?: { addr?: string } } | null)?.prefix?.addr
  return address !== undefined && (address.startsWith('127.') || address === '::1')
}

/** A single value, a list of flags, or an anonymous set. */
function includes(right: unknown, value: unknown): boolean {
  if (Array.isArray(right)) return right.includes(value)
  const set = (right as { set?: unknown } | null)?.set
  if (set !== undefined) return (Array.isArray(set) ? set : [set]).includes(value)
  // A wildcard of an interface's name, such as "l*".
  if (typeof right === 'string' && right.endsWith('*') && typeof value === 'string')
    return value.startsWith(right.slice(0, -1))
  return right === value
}
