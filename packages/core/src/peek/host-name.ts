import { isIP } from 'node:net'

const label = '(?!-)[a-z0-9_-]{1,63}(?<!-)'
const labels = new RegExp(`^${label}(\\.${label})*$`)

/**
 * A host name as DNS has it (RFC 1123, 2.1, and the underscores that are in use), in lower case and without a final dot;
 * undefined for addresses and all else. A name that ends in a number is none: resolvers take `2130706433` and `127.1` for
 * addresses.
 */
export function hostName(text: string): string | undefined {
  const name = text.toLowerCase().replace(/\.$/, '')
  if (name.length > 253 || isIP(name) !== 0 || /(^|\.)(\d+|0x[0-9a-f]*)$/.test(name)) return undefined
  return labels.test(name) ? name : undefined
}
