import { TproxyError } from '../errors.ts'
import { actions, aliases, type Field, fields, keywords, versions } from './fields.ts'
import { insteadOfName, meantAction, meantKeyword } from './meant.ts'
import type { Action, Criteria, OneOf, Rule } from './model.ts'
import { named, parseProtocol, protocols } from './values.ts'
import { isBroken, splitWords, type Word } from './words.ts'

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] }

/** Makes the message about what is wrong at a column, from 1, of a text that is a rule. */
export type Place = (column: number, message: string) => string

/**
 * Reads one line: an action, then any of what {@link Rule} names, in any order: `drop tcp dport 25`, `direct to
 * 10.0.0.0/8 192.168.0.0/16`, `proxy tcp dport 80,443 not uid 1000 via socks`. Lists are separated by commas or spaces;
 * what could be something else is quoted, `process "my app"`; `#` begins a comment. Throws `E_RULE` with the column.
 */
export function parseRule(text: string): Rule {
  return parseRuleAt(text, (column, message) => `rule "${text}": at column ${column}: ${message}`)
}

/** {@link parseRule} of a text that stands somewhere. */
export function parseRuleAt(text: string, place: Place): Rule {
  return new Parser(text, place).rule()
}

/** What is wrong with a line, both counted from 1. */
export interface RuleProblem {
  readonly line: number
  readonly column: number
  /** `expected …, got …` */
  readonly error: TproxyError
}

/** What a text with a rule a line says. */
export interface RuleLines {
  readonly rules: readonly Rule[]
  /** Of each, the number of its line, from 1. */
  readonly lines: readonly number[]
  /** What applies where none matches, if a line says so; and the number of that line. */
  readonly default?: Action
  readonly defaultLine?: number
  /** Of lines that do not parse. */
  readonly problems: readonly RuleProblem[]
}

/** Reads one rule a line; one may be `default ACTION`, which says what applies where none matches; `#` begins a comment. */
export function readRuleLines(text: string): RuleLines {
  const rules: Rule[] = []
  const lines: number[] = []
  const problems: RuleProblem[] = []
  let otherwise: Pick<RuleLines, 'default' | 'defaultLine'> = {}
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue
    let column = 1
    try {
      const parser = new Parser(line, (at, message) => {
        column = at
        return message
      })
      const given = parser.default(otherwise.defaultLine)
      if (given !== undefined) otherwise = { default: given, defaultLine: index + 1 }
      else if (rules.push(parser.rule())) lines.push(index + 1)
    } catch (error) {
      problems.push({ line: index + 1, column, error: error as TproxyError })
    }
  }
  return { rules, lines, ...otherwise, problems }
}

/** {@link readRuleLines} of a text without problems. Throws `E_RULE` for the first. */
export function parseRuleList(text: string, file: string): Pick<RuleLines, 'rules' | 'default'> {
  const { problems, lines: _, defaultLine: __, ...list } = readRuleLines(text)
  const [problem] = problems
  if (problem === undefined) return list
  const { line, column, error } = problem
  throw new TproxyError('E_RULE', `${file}:${line}:${column}: ${error.message}`, { cause: error })
}

class Parser {
  readonly #words: readonly Word[]
  readonly #end: number
  readonly #place: Place
  /** Those of the protocols that must match, in order. */
  readonly #protocols: Word[] = []
  #next = 0

  constructor(text: string, place: Place) {
    const { words, end } = splitWords(text)
    this.#words = words
    this.#end = end
    this.#place = place
    const broken = words.find(isBroken)
    if (broken !== undefined)
      throw this.#wrong(
        broken,
        'quotes around the whole word, such as "my app"',
        'a quote inside is written twice',
      )
  }

  /** The action of a line that says what applies by default, as at most one does. */
  default(earlier: number | undefined): Action | undefined {
    if (this.#words[0]?.text !== 'default') return undefined
    if (earlier !== undefined) throw this.#wrong(this.#words[0], 'default once', `see line ${earlier}`)
    this.#next = 1
    const action = this.#action()
    if (this.#words[2] !== undefined) throw this.#wrong(this.#words[2], 'the end of the line')
    return action
  }

  rule(): Rule {
    const first = this.#words[0]
    const rule: Mutable<Rule> & { not?: Mutable<Criteria> } = { action: this.#action() }
    for (let word = this.#take(); word !== undefined; word = this.#take()) {
      let negated = false
      let keyword = word
      if (word.text === 'not' && !word.quoted) {
        negated = true
        const after = this.#take()
        if (after === undefined) throw this.#wrong(after, 'what must not match, such as tcp or to 10.0.0.0/8')
        keyword = after
      }
      const { text } = keyword
      if (keyword.quoted) throw this.#wrong(keyword, 'a keyword')
      if (!negated && text === 'log') rule.log = true
      else if (!negated && text === 'via') rule.via = this.#value('the name of a plugin')
      else {
        const criteria: Mutable<Criteria> = negated ? (rule.not ??= {}) : rule
        this.#criterion(keyword, criteria, negated ? [] : this.#protocols)
        // What follows such a word in its list is denied with it.
        while (negated && isProtocol(keyword) && isProtocol(this.#words[this.#next]))
          this.#criterion(this.#take() as Word, criteria, [])
      }
    }
    this.#check(rule, first)
    return rule
  }

  #action(): Action {
    const word = this.#take()
    if (word === undefined || !isAction(word.text)) {
      const meant = word && meantAction(word.text)
      throw this.#wrong(word, `an action: ${actions.join(', ')}`, meant && `did you mean ${meant}?`)
    }
    return word.text as Action
  }

  /** Notes in `protocolWords` the words that say which. */
  #criterion(keyword: Word, criteria: Mutable<Criteria>, protocolWords: Word[]): void {
    const text = named(aliases, keyword.text) ?? keyword.text
    const version = named(versions, text)
    const field = named(fields, text)
    if (version !== undefined) {
      this.#once(keyword, criteria, 'ip')
      criteria.ip = version
    } else if (named(protocols, text) !== undefined) {
      // Several in a row are a list.
      const before = criteria.protocol === undefined ? [] : [criteria.protocol].flat()
      criteria.protocol = oneOrMany([...before, text])
      protocolWords.push(keyword)
    } else if (field !== undefined) {
      this.#once(keyword, criteria, field.name)
      const values: string[] = []
      for (let word = this.#words[this.#next]; word !== undefined; word = this.#words[this.#next]) {
        if (values.length > 0 && this.#endsList(word, field)) break
        if (word.text.startsWith('!') && !word.quoted)
          throw this.#wrong(word, field.expected, `write: not ${text} ${word.text.slice(1)}`)
        if (!field.valid(word.text)) {
          const isKeyword = keywords.includes(word.text)
          throw this.#wrong(
            word,
            field.expected,
            isKeyword ? undefined : insteadOfName(field.name, word.text),
          )
        }
        values.push(word.text)
        if (field.name === 'protocol') protocolWords.push(word)
        this.#next++
      }
      if (values.length === 0) throw this.#wrong(undefined, field.expected)
      criteria[field.name] = oneOrMany(values.map((value) => plain(field.name, value)))
    } else {
      const meant = meantKeyword(keyword.text)
      throw this.#wrong(
        keyword,
        'what to match, such as tcp, to, dport, uid, not, via or log',
        meant && `did you mean ${meant}?`,
      )
    }
  }

  /** A keyword ends a list, unless it stands first in it, where it can only be a value. So does an IP version. */
  #endsList(word: Word, field: Field): boolean {
    if (word.quoted || !keywords.includes(word.text)) return false
    return field.name !== 'protocol' || !isProtocol(word)
  }

  #once(keyword: Word, criteria: Criteria, field: keyof Criteria): void {
    if (criteria[field] !== undefined) throw this.#wrong(keyword, `it once; lists are separated by commas`)
  }

  #check(rule: Rule, action: Word | undefined): void {
    const problem = contradiction(rule)
    if (problem === undefined) return
    const { path, message } = problem
    const [field, index = 0] = path
    const word = field === 'protocol' ? this.#protocols[index] : action
    throw new TproxyError('E_RULE', this.#place(word?.column ?? 1, message))
  }

  #take(): Word | undefined {
    return this.#words[this.#next++]
  }

  #value(expected: string): string {
    const word = this.#take()
    if (word === undefined) throw this.#wrong(word, expected)
    return word.text
  }

  #wrong(word: Word | undefined, expected: string, hint?: string): TproxyError {
    const found = word === undefined ? 'the end' : `"${word.text}"`
    const message = this.#place(word?.column ?? this.#end, `expected ${expected}, got ${found}`)
    return new TproxyError('E_RULE', message, hint === undefined ? {} : { hint })
  }
}

/** What makes a rule impossible to apply, and what of it says so: of a list, the item. */
export interface Contradiction {
  readonly path: readonly ['action'] | readonly ['protocol'] | readonly ['protocol', number]
  readonly message: string
}

/** undefined when nothing contradicts. */
export function contradiction(rule: Rule): Contradiction | undefined {
  const { action, via, protocol = [], not } = rule
  if (via !== undefined && action !== 'proxy')
    return {
      path: ['action'],
      message: `via is for proxy, which alone asks a plugin; this rule says ${action}`,
    }
  const owner = (['process', 'gid'] as const).find((field) => (rule[field] ?? not?.[field]) !== undefined)
  if (action !== 'proxy' && owner === undefined) return undefined
  const given = [protocol].flat()
  const other = given.findIndex((each) => {
    const [low, high] = parseProtocol(each) ?? []
    return low !== 6n || high !== 6n
  })
  if (other < 0) return undefined
  const why = action === 'proxy' ? 'proxy works for TCP only' : `${owner} is known for TCP only`
  return {
    path: Array.isArray(protocol) ? ['protocol', other] : ['protocol'],
    message: `${why}, this rule says ${given[other]}`,
  }
}

/** Whether a word is an action. */
export function isAction(word: string): word is Action {
  return /^(proxy|direct|drop|reject|redirect(-into)?:[^\s/]{1,15})$/.test(word)
}

/** An IP version is none, although ipv6 is a protocol, too: IPv6 in IPv4. */
const isProtocol = (word: Word | undefined) =>
  word !== undefined &&
  !word.quoted &&
  named(protocols, word.text) !== undefined &&
  named(versions, word.text) === undefined

const oneOrMany = <T>(values: readonly T[]): OneOf<T> => (values.length === 1 ? (values[0] as T) : values)

/** Numbers stay numbers, so that a rule looks as one would write it. */
function plain(field: keyof Criteria, value: string): string {
  const numeric = field === 'sport' || field === 'dport' || field === 'uid' || field === 'gid'
  return (numeric && /^\d+$/.test(value) ? Number(value) : value) as string
}
