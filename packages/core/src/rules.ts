import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'
import { addressBytes } from './endpoint.ts'
import { TproxyError } from './errors.ts'

/** What the kernel does with a new connection. `proxy` brings it to the plugins. */
export type Action = 'proxy' | 'direct' | 'drop'

/**
 * One rule of an ordered list: the first that matches decides, and what no rule matches is `proxy`. A missing field
 * matches everything.
 */
export interface Rule {
  readonly action: Action
  /** Addresses and prefixes, IPv4 and IPv6 mixed: `10.0.0.0/8`, `2001:db8::1`. */
  readonly to?: readonly string[]
  /** Ports and inclusive ranges: `443`, `[8000, 8999]`. */
  readonly dport?: readonly (number | readonly [low: number, high: number])[]
}

/** A rule as the kernel matches it: one prefix and one port range. */
export interface CompiledRule {
  readonly address: Uint8Array
  readonly mask: Uint8Array
  readonly portLow: number
  readonly portHigh: number
  readonly action: Action
  readonly number: number
}

const actions: readonly string[] = ['proxy', 'direct', 'drop']

/**
 * Reads one line: `drop tcp dport 25`, `direct to 10.0.0.0/8 192.168.0.0/16`, `proxy tcp dport 80,443,8000-8999`.
 * Lists are separated by commas or spaces, the order after the action is free. Throws `E_RULE` with the column.
 */
export function parseRule(text: string): Rule {
  const words = [...text.matchAll(/[^\s,]+/g)].map((match) => ({ word: match[0], column: match.index + 1 }))
  const fail = (at: { word: string; column: number } | undefined, expected: string): never => {
    const where = at === undefined ? 'at the end' : `at column ${at.column}, "${at.word}"`
    throw new TproxyError('E_RULE', `rule "${text}": ${where}: expected ${expected}`)
  }
  const first = words[0]
  if (first === undefined || !actions.includes(first.word)) fail(first, `an action: ${actions.join(', ')}`)
  const rule: { action: Action; to?: string[]; dport?: (number | [number, number])[] } = {
    action: first?.word as Action,
  }
  for (let i = 1; i < words.length; ) {
    const keyword = words[i++]
    if (keyword?.word === 'tcp') continue
    if (keyword?.word !== 'to' && keyword?.word !== 'dport') fail(keyword, 'tcp, to or dport')
    const start = i
    for (
      let value = words[i];
      value !== undefined && !['tcp', 'to', 'dport'].includes(value.word);
      value = words[++i]
    )
      if (keyword?.word === 'to') {
        if (prefixOf(value.word) === undefined) fail(value, 'an address or prefix, such as 10.0.0.0/8')
        rule.to = [...(rule.to ?? []), value.word]
      } else {
        const range = rangeOf(value.word)
        if (range === undefined) fail(value, 'a port or range, such as 443 or 8000-8999')
        rule.dport = [...(rule.dport ?? []), range as [number, number]]
      }
    if (i === start) fail(words[i], keyword?.word === 'to' ? 'an address or prefix' : 'a port or range')
  }
  return rule
}

/** Expands rules into what the kernel matches. Throws `E_RULE` for invalid fields and lists beyond `limit`. */
export function compileRules(rules: readonly (Rule | string)[], limit: number): CompiledRule[] {
  const compiled = rules.flatMap((given, index) => {
    const rule = typeof given === 'string' ? parseRule(given) : given
    const name = `rule ${index + 1}`
    if (!actions.includes(rule.action))
      throw new TproxyError('E_RULE', `${name}: "${rule.action}" is not an action`, {
        hint: actions.join(', '),
      })
    const prefixes = (rule.to ?? ['::/0']).map((text) => {
      const prefix = prefixOf(text)
      if (prefix === undefined)
        throw new TproxyError('E_RULE', `${name}: "${text}" is not an address or prefix`)
      return prefix
    })
    const ranges = (rule.dport ?? [[0, 65_535] as const]).map((port) => {
      const [low, high] = typeof port === 'number' ? [port, port] : port
      if (!isPort(low) || !isPort(high) || low > high)
        throw new TproxyError('E_RULE', `${name}: ${low}-${high} is not a port range`)
      return { portLow: low, portHigh: high }
    })
    return prefixes.flatMap((prefix) =>
      ranges.map((range) => ({ ...prefix, ...range, action: rule.action, number: index + 1 })),
    )
  })
  if (compiled.length > limit)
    throw new TproxyError('E_RULE', `the rules expand to ${compiled.length} pairs of prefix and port range`, {
      hint: `at most ${limit}`,
    })
  return compiled
}

const isPort = (value: number) => Number.isInteger(value) && value >= 0 && value <= 65_535

function rangeOf(text: string): [number, number] | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text)
  if (match === null) return undefined
  const low = Number(match[1])
  const high = Number(match[2] ?? match[1])
  return isPort(low) && isPort(high) && low <= high ? [low, high] : undefined
}

function prefixOf(text: string): { address: Uint8Array; mask: Uint8Array } | undefined {
  const [address = '', length, ...rest] = text.split('/')
  if (isIP(address) === 0 || rest.length > 0) return undefined
  const width = ipaddr.parse(address).kind() === 'ipv4' ? 32 : 128
  if (length !== undefined && !/^\d{1,3}$/.test(length)) return undefined
  const bits = length === undefined ? width : Number(length)
  if (bits > width) return undefined
  const mask = prefixMask(128 - width + bits)
  return { address: addressBytes(address).map((byte, i) => byte & (mask[i] ?? 0)), mask }
}

function prefixMask(bits: number): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => (0xff00 >> Math.min(8, Math.max(0, bits - i * 8))) & 0xff)
}
