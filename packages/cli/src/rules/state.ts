import { endpoint, formatRule, type Packet, type Remembered, type Rules, type RuleTables } from '@tproxy/core'
import type { RulesState, Verdict } from '../control/protocol.ts'

/** Rules that come close are worth showing; thousands are not. */
const shownMisses = 10

/** The rules in force, with what they counted. */
export function stateOf(rules: Rules, shadowed: RulesState['shadowed']): RulesState {
  const counts = rules.counts()
  const count = (number: number) => ({
    packets: Number(counts[number]?.packets ?? 0n),
    bytes: Number(counts[number]?.bytes ?? 0n),
  })
  return {
    rules: rules.list.rules.map((rule, index) => ({
      number: index + 1,
      ...count(index + 1),
      rule: formatRule(rule),
    })),
    default: { ...count(0), action: rules.list.default },
    shadowed,
  }
}

/** What becomes of a packet, by the rules and then by what the kernel remembers of plugins' verdicts. */
export function judge(tables: RuleTables, packet: Packet, memories: readonly Remembered[] = []): Verdict {
  const { rule, action, against } = tables.explain(packet)
  const memory = action === 'proxy' && packet.protocol === 6 ? recall(memories, rule, packet) : undefined
  const { rules, default: fallback } = tables.list
  const text = (number: number) => {
    const found = rules[number - 1]
    return found === undefined ? `default ${fallback}` : formatRule(found)
  }
  const before = against.filter(({ fields }) => fields.length > 0)
  const nearest = before.toSorted((a, b) => a.fields.length - b.fields.length || a.rule - b.rule)
  return {
    rule,
    action,
    text: text(rule),
    ...(memory && { remembered: { verdict: memory.verdict, until: memory.until.toISOString() } }),
    before: before.length,
    misses: nearest
      .slice(0, shownMisses)
      .toSorted((a, b) => a.rule - b.rule)
      .map(({ rule: number, fields }) => ({ rule: number, text: text(number), against: fields })),
  }
}

/** As the kernel does: a verdict about the port comes before one about the address. */
function recall(
  memories: readonly Remembered[],
  rule: number,
  { destination, dport, uid }: Packet,
): Remembered | undefined {
  const { address } = endpoint(destination, 0)
  const alike = memories.filter((it) => it.rule === rule && it.uid === uid && it.address === address)
  return alike.find(({ port }) => port === dport) ?? alike.find(({ port }) => port === undefined)
}
