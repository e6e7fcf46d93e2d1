import { fields, keywords, versions } from './fields.ts'
import type { Criteria, Rule } from './model.ts'
import { named, protocols } from './values.ts'
import { quote } from './words.ts'

/** Writes a rule as one line that `parseRule` reads. */
export function formatRule(rule: Rule): string {
  return [
    quote(rule.action),
    ...formatCriteria(rule, ''),
    ...formatCriteria(rule.not ?? {}, 'not '),
    ...(rule.via === undefined ? [] : [`via ${quote(rule.via)}`]),
    ...(rule.log === true ? ['log'] : []),
  ].join(' ')
}

function formatCriteria(criteria: Criteria, prefix: string): string[] {
  const words = Object.entries(fields).flatMap(([keyword, { name }]) => {
    const given = criteria[name]
    if (given === undefined) return []
    const values = [given].flat().map(String)
    if (name === 'protocol') return [prefix + formatProtocols(values)]
    return [`${prefix}${keyword} ${values.map((value) => quote(value, keywords)).join(',')}`]
  })
  return criteria.ip === undefined ? words : [`${prefix}ip${criteria.ip}`, ...words]
}

/** One with a name needs no keyword, unless it is the name of a version, too; which, behind others, would be one. */
function formatProtocols(values: readonly string[]): string {
  const [first = '', ...more] = values
  const known = more.length === 0 && named(protocols, first) !== undefined
  if (known && named(versions, first) === undefined) return first
  return `proto ${[first, ...more.map((value) => quote(value, Object.keys(versions)))].join(',')}`
}
