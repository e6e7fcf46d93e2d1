import { readFileSync } from 'node:fs'
import { nearest, parseRuleAt, type Rule, reason } from '@tproxy/core'
import { type Document, isCollection, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml'
import { unreadable } from '../rules-file.ts'
import { type ConfigFile, type Issue, validate } from './schema.ts'

/** A configuration file whose rules are all read. */
export type Config = Omit<ConfigFile, 'rules'> & { readonly rules: readonly Rule[] }

/** Reads a configuration file, or tells all that is wrong with it as `file:line:column: expected …, got …`. */
export function readConfig(
  file: string,
): { readonly config: Config } | { readonly problems: readonly string[] } {
  try {
    return parseConfig(readFileSync(file, 'utf8'), file)
  } catch (error) {
    return { problems: [`--config ${file}: ${unreadable(error)}`] }
  }
}

/** {@link readConfig} of a text. */
export function parseConfig(text: string, file: string): ReturnType<typeof readConfig> {
  const lineCounter = new LineCounter()
  const document = parseDocument(text, { lineCounter, prettyErrors: false })
  const problems: { at: number; text: string }[] = []
  const place = (at: number) => {
    const { line, col } = lineCounter.linePos(at)
    return `${file}:${line}:${col}`
  }
  const tell = (at: number, what: string) => problems.push({ at, text: `${place(at)}: ${what}` })

  for (const { pos, message } of [...document.errors, ...document.warnings]) tell(pos[0], message)
  const value: unknown = problems.length === 0 ? document.toJS() : {}
  const valid = validate(value)
  if ('issues' in valid)
    for (const issue of valid.issues) tell(positionOf(document, issue), describe(document, issue))

  const given = isMap(document.contents) ? document.get('rules') : undefined
  const items = isCollection(given) ? given.items : []
  const rules = items.flatMap((item, index): Rule[] => {
    const rule = document.getIn(['rules', index])
    if (typeof rule !== 'string' || rule === '')
      return 'file' in valid ? [valid.file.rules?.[index] as Rule] : []
    const start = isNode(item) ? (item.range?.[0] ?? 0) : 0
    // Where the text does not stand in the file as it is, as with escapes, its beginning is told.
    const inside = [start, start + 1].find((at) => text.startsWith(rule, at))
    let at = start
    try {
      return [parseRuleAt(rule, (column) => place((at = inside === undefined ? start : inside + column - 1)))]
    } catch (error) {
      problems.push({ at, text: reason(error) })
      return []
    }
  })
  if (problems.length === 0 && 'file' in valid) return { config: { ...valid.file, rules } }
  return { problems: problems.toSorted((a, b) => a.at - b.at).map((problem) => problem.text) }
}

function describe(document: Document, { path, expected, keys = [] }: Issue): string {
  const key = String(path.at(-1))
  if (expected === undefined) {
    const near = nearest(key, keys)
    return near === undefined
      ? `expected one of ${keys.join(', ')}, got "${key}"`
      : `expected a known key, got "${key}" (did you mean ${near}?)`
  }
  if (path.length > 0 && !document.hasIn(path)) return `expected ${key}: ${expected}, got none`
  const node = path.length === 0 ? document.contents : document.getIn(path, true)
  return `expected ${expected}, got ${kind(node)}`
}

function kind(node: unknown): string {
  if (isMap(node)) return 'a mapping'
  if (isCollection(node)) return 'a list'
  return isScalar(node) && node.value !== null ? JSON.stringify(node.value) : 'nothing'
}

/** Of the value, or of the key when that is what is wrong; of what is around it when it is missing. */
function positionOf(document: Document, { path, expected }: Issue): number {
  if (expected === undefined) {
    const around = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true)
    const pair = isMap(around)
      ? around.items.find(({ key }) => isScalar(key) && key.value === path.at(-1))
      : undefined
    if (isNode(pair?.key)) return pair.key.range?.[0] ?? 0
  }
  for (let depth = path.length; depth > 0; depth--) {
    const node = document.getIn(path.slice(0, depth), true)
    if (isNode(node)) return node.range?.[0] ?? 0
  }
  return document.contents?.range?.[0] ?? 0
}
