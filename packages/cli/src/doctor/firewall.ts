import { execFileSync } from 'node:child_process'
import { reason } from '@tproxy/core'
import { findTool } from '../executable.ts'
import { type Check, ok, read, warn } from './check.ts'
import { type Chain, type Match, parseRuleset, type Rule, type Ruleset } from './ruleset.ts'
import { matchesSteered } from './steered-packet.ts'

/**
 * Intercepted packets pass the firewall a second time, arriving on lo for a foreign address. Names what would drop them
 * there.
 */
export function firewallChecks(): Check[] {
  const nft = findTool('nft')
  const legacy = ['ip_tables_names', 'ip6_tables_names'].some((name) => read(`/proc/net/${name}`))
  const checks: Check[] = []
  if (legacy)
    checks.push(
      warn(
        'iptables (legacy)',
        'there are rules, which are not examined',
        'see that iptables-legacy -S INPUT accepts -i lo for every address',
      ),
    )
  if (nft === undefined) return legacy ? checks : [ok('firewall', 'nft is not installed; no rules are known')]
  try {
    const json = execFileSync(nft, ['-j', 'list', 'ruleset'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 256 * 1024 * 1024,
    })
    return [...checks, ...examine(parseRuleset(json))]
  } catch (error) {
    const text = (error as { stderr?: string }).stderr?.trim().split('\n')[0] || reason(error)
    return [...checks, warn('firewall', `nft list ruleset: ${text}`, 'sudo tproxy-run doctor')]
  }
}

/** What stands in the way, chain by chain. */
export function examine(ruleset: Ruleset): Check[] {
  const found = new Map<string, Check>()
  for (const family of [4, 6] as const)
    for (const chain of ruleset.chains) {
      if (chain.hook !== 'prerouting' && chain.hook !== 'input') continue
      if (!['inet', family === 4 ? 'ip' : 'ip6'].includes(chain.family)) continue
      const where = `chain ${chain.family} ${chain.table} ${chain.name}`
      const verdict = walk(chain, ruleset, family, 0)
      if (verdict.kind === 'drop')
        found.set(`${where} ${verdict.because}`, drops(chain, where, verdict.because))
      else if (verdict.kind === 'none' && chain.policy === 'drop')
        found.set(where, drops(chain, where, 'policy drop, and nothing accepts all of lo'))
    }
  return found.size > 0 ? [...found.values()] : [ok('firewall', 'lets intercepted packets pass on lo')]
}

function drops({ family, table, name }: Chain, where: string, because: string): Check {
  const remedy = `nft insert rule ${family} ${table} ${name} iif lo accept`
  return warn('firewall', `${where} drops intercepted packets: ${because}`, remedy)
}

type Walk = { kind: 'accept' | 'none' | 'return' } | { kind: 'drop'; because: string }

/** What a chain does with the packet, counting only what is sure. */
function walk(
  chain: Pick<Chain, 'family' | 'table' | 'name'>,
  ruleset: Ruleset,
  family: 4 | 6,
  depth: number,
): Walk {
  const rules = ruleset.rules.filter(
    (rule) => rule.chain === chain.name && rule.table === chain.table && rule.family === chain.family,
  )
  for (const rule of depth > 16 ? [] : rules) {
    if (!appliesTo(rule, family)) continue
    for (const statement of rule.expr) {
      if ('accept' in statement) return { kind: 'accept' }
      if ('drop' in statement || 'reject' in statement) return { kind: 'drop', because: text(rule) }
      if ('return' in statement) return { kind: 'return' }
      const target = (statement['jump'] ?? statement['goto']) as { target: string } | undefined
      if (target === undefined) continue
      const inner = walk({ ...chain, name: target.target }, ruleset, family, depth + 1)
      if (inner.kind === 'accept' || inner.kind === 'drop') return inner
      if ('goto' in statement) return { kind: 'none' }
    }
  }
  return { kind: 'none' }
}

/** Whether all of a rule's matches surely hold; limits and lookups that we do not know count as not. */
function appliesTo({ expr }: Rule, family: 4 | 6): boolean {
  return expr.every((statement) => {
    if ('match' in statement) return matchesSteered(statement['match'] as Match, family) === true
    return !['limit', 'xt', 'vmap', 'quota', 'ct count', 'socket'].some((name) => name in statement)
  })
}

function text({ expr }: Rule): string {
  const fib = expr.some((statement) => JSON.stringify(statement).includes('"fib"'))
  const reject = expr.some((statement) => 'reject' in statement)
  if (fib)
    return 'it drops sources without a route back by their interface (fib saddr . iif oif missing drop)'
  return `a rule ${reject ? 'rejects' : 'drops'} them before lo is accepted`
}
