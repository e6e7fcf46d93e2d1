import { nearest, parseRuleAt, type Rule, reason } from '@tproxy/core'
import { type Document, isCollection, isMap, isNode, isScalar, LineCounter, parseDocument, visit } from 'yaml'
import { explain, type Finding, type Place, wholeWord } from '../finding.ts'
import { type ConfigFile, type Issue, validate } from './schema.ts'

/** An item of a list in the file, and where it stands there. */
export type Numbered<T> = readonly (readonly [index: number, item: T])[]

/** A configuration file, taken apart into what is as it should be and what is not. */
export interface OpenedConfig {
  /** What is malformed, in the order of the file. */
  readonly errors: readonly Finding[]
  /** The keys without errors. */
  readonly sound: Omit<ConfigFile, 'rules' | 'plugins'>
  readonly plugins: Numbered<NonNullable<ConfigFile['plugins']>[number]>
  readonly rules: Numbered<Rule>
  /** Where a value stands, or what is around it; of a text, where `word` stands in it. */
  place(path: readonly PropertyKey[], word?: string): Place
}

/** Takes a configuration file apart. */
export function openConfig(text: string): OpenedConfig {
  const lineCounter = new LineCounter()
  const document = parseDocument(text, { lineCounter, prettyErrors: false })
  const found: { at: number; message: string; remedy: string | undefined }[] = []

  for (const { pos, message } of [...document.errors, ...document.warnings])
    found.push({ at: pos[0], message, remedy: undefined })
  visit(document, {
    Alias(_, alias) {
      if (alias.resolve(document) === undefined)
        found.push({
          at: alias.range?.[0] ?? 0,
          message: `there is no &${alias.source} before`,
          remedy: `quote "*${alias.source}" if it is text`,
        })
    },
  })
  let value: unknown = {}
  try {
    if (found.length === 0) value = document.toJS()
  } catch (error) {
    // Such as aliases of aliases that become more than fits into memory.
    found.push({ at: 0, message: reason(error), remedy: undefined })
  }
  const valid = validate(value)
  const issues = 'issues' in valid ? valid.issues : []
  for (const issue of found.length === 0 ? issues : [])
    found.push({ at: positionOf(document, issue), ...describe(document, issue) })

  const { rules = [], plugins = [], ...sound } = withoutIssues(value, issues)
  const given = isMap(document.contents) ? document.get('rules') : undefined
  const nodes = isCollection(given) ? given.items : []
  const read = [...rules.entries()].flatMap(([index, rule]): [number, Rule][] => {
    if (rule === undefined) return []
    if (typeof rule !== 'string') return [[index, rule]]
    const node = nodes[index]
    const start = isNode(node) ? (node.range?.[0] ?? 0) : 0
    // Where the text does not stand in the file as it is, as with escapes, its beginning is told.
    const inside = [start, start + 1].find((at) => text.startsWith(rule, at))
    let at = start
    try {
      return [
        [
          index,
          parseRuleAt(rule, (column, message) => {
            at = inside === undefined ? start : inside + column - 1
            return message
          }),
        ],
      ]
    } catch (error) {
      found.push({ at, ...explain(error) })
      return []
    }
  })
  const placeAt = (at: number): Place => {
    const { line, col } = lineCounter.linePos(at)
    return { line, column: col }
  }
  return {
    errors: found
      .toSorted((a, b) => a.at - b.at)
      .map(({ at, ...finding }) => ({ severity: 'error', place: placeAt(at), ...finding })),
    sound,
    plugins: [...plugins.entries()].flatMap(([index, plugin]) =>
      plugin === undefined ? [] : [[index, plugin] as const],
    ),
    rules: read,
    place(path, word) {
      const { at, end } = nodeAt(document, path)
      const inside = word === undefined ? undefined : wholeWord(word).exec(text.slice(at, end))?.index
      return placeAt(at + (inside ?? 0))
    },
  }
}

type Sound = Omit<ConfigFile, 'rules' | 'plugins'> & {
  readonly [List in 'rules' | 'plugins']?: readonly (NonNullable<ConfigFile[List]>[number] | undefined)[]
}

/** Without the keys that are not as expected; of the lists, without such items, which leave their places empty. */
function withoutIssues(value: unknown, issues: readonly Issue[]): Sound {
  if (issues.some(({ path }) => path.length === 0)) return {}
  const lists: readonly unknown[] = ['rules', 'plugins']
  const items = issues.filter(({ path: [key, index] }) => lists.includes(key) && typeof index === 'number')
  const bad = new Set(issues.filter((issue) => !items.includes(issue)).map(({ path }) => path[0]))
  const sound = Object.entries(value as object).filter(([key]) => !bad.has(key))
  return Object.fromEntries(
    sound.map(([key, given]) => {
      const empty = new Set(items.filter(({ path }) => path[0] === key).map(({ path }) => path[1]))
      return [
        key,
        empty.size === 0
          ? given
          : (given as unknown[]).map((item, index) => (empty.has(index) ? undefined : item)),
      ]
    }),
  )
}

function describe(
  document: Document,
  { path, expected, complete, keys = [] }: Issue,
): { message: string; remedy: string | undefined } {
  const key = String(path.at(-1))
  // What plugins are given may be secret, and who errs writes it anywhere below.
  const isSecret = path[0] === 'plugins'
  if (expected === undefined) {
    const near = path.length === 1 && key === 'default' ? defaults : nearest(key, keys)
    return near === undefined
      ? {
          message: `expected one of ${keys.join(', ')}, got ${isSecret && /[:@]/.test(key) ? 'another' : `"${key}"`}`,
          remedy: undefined,
        }
      : { message: `expected a known key, got "${key}"`, remedy: `did you mean ${near}?` }
  }
  if (complete) return { message: expected, remedy: undefined }
  if (path.length > 0 && !document.hasIn(path))
    return { message: `expected ${key}: ${expected}, got none`, remedy: undefined }
  const node = path.length === 0 ? document.contents : document.getIn(path, true)
  const remedy = key === 'action' || key === 'default-action' ? meantAction(node) : undefined
  return { message: `expected ${expected}, got ${kind(node, isSecret)}`, remedy }
}

/** What the command line calls --default, and what is not the same. */
const defaults = 'default-verdict or default-action'

/** An action alone is a rule. */
function meantAction(node: unknown): string | undefined {
  try {
    if (isScalar(node) && /^\S+$/.test(String(node.value)))
      parseRuleAt(String(node.value), (_column, message) => message)
  } catch (error) {
    return explain(error).remedy
  }
  return undefined
}

function kind(node: unknown, isSecret: boolean): string {
  if (isMap(node)) return 'a mapping'
  if (isCollection(node)) return 'a list'
  if (!isScalar(node) || node.value === null) return 'nothing'
  return isSecret ? `a ${typeof node.value}` : JSON.stringify(node.value)
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
  return nodeAt(document, path).at
}

/** The node that a path leads to, or as far as it leads. */
function nodeAt(document: Document, path: readonly PropertyKey[]): { at: number; end: number } {
  for (let depth = path.length; depth > 0; depth--) {
    const node = isCollection(document.contents) ? document.getIn(path.slice(0, depth), true) : undefined
    if (isNode(node)) return { at: node.range?.[0] ?? 0, end: node.range?.[1] ?? 0 }
  }
  const [at = 0, end = 0] = document.contents?.range ?? []
  return { at, end }
}
