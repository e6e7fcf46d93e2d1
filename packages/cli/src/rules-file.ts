import { readFileSync } from 'node:fs'
import { type Action, parseRule, type Rule, type RuleFinding, readRuleLines, reason } from '@tproxy/core'
import { explain, type Finding, locate, type Place, wholeWord } from './finding.ts'
import type { RuleSource } from './options.ts'

/** What texts and files of rules come to. */
export interface GivenRules {
  readonly rules: readonly Rule[]
  /** Says of one of them, or of the default, what is wrong with it, with its file, line and column. */
  readonly describe: (finding: RuleFinding) => string
  /** Where none matches; undefined when no line says so. */
  readonly default: Action | undefined
  /** What does not parse, with file, line and column; or cannot be read. */
  readonly problems: readonly string[]
}

/** Reads `--rule` and `--rules` in the order given. */
export function readRules(sources: readonly RuleSource[]): GivenRules {
  const lists = sources.map((source) => ('text' in source ? readText(source.text) : readFile(source.file)))
  const last = lists.findLast((list) => list.default !== undefined)
  return {
    rules: lists.flatMap(({ rules }) => rules),
    describe: (finding) => {
      if (finding.rule === 0 && last !== undefined) return last.describe(finding)
      let rule = finding.rule
      for (const list of lists)
        if (rule <= list.rules.length) return list.describe({ ...finding, rule })
        else rule -= list.rules.length
      return finding.message
    },
    default: last?.default,
    problems: lists.flatMap(({ problems }) => problems),
  }
}

const nothing: GivenRules = {
  rules: [],
  describe: ({ message }) => message,
  default: undefined,
  problems: [],
}

function readText(text: string): GivenRules {
  try {
    return {
      ...nothing,
      rules: [parseRule(text)],
      describe: (finding) => locate(`rule "${text}"`, { ...finding, place: undefined }),
    }
  } catch (error) {
    return { ...nothing, problems: [reason(error)] }
  }
}

function readFile(file: string): GivenRules {
  let opened: OpenedRules
  try {
    opened = openRules(readFileSync(file, 'utf8'))
  } catch (error) {
    return { ...nothing, problems: [`--rules ${file}: ${unreadable(error)}`] }
  }
  return {
    rules: opened.rules,
    default: opened.default,
    describe: (finding) => locate(file, { ...finding, place: opened.place(finding) }),
    problems: opened.errors.map((error) => locate(file, error)),
  }
}

/** A file of rules, taken apart into what is as it should be and what is not. */
export interface OpenedRules {
  /** What is malformed, in the order of the file. */
  readonly errors: readonly Finding[]
  readonly rules: readonly Rule[]
  readonly default: Action | undefined
  /** Where that stands which was found about a rule, or about the default. */
  readonly place: (finding: Pick<RuleFinding, 'rule' | 'value'>) => Place
}

/** Takes a file of rules apart. */
export function openRules(text: string): OpenedRules {
  const { rules, lines, default: fallback, defaultLine, problems } = readRuleLines(text)
  return {
    errors: problems.map(({ line, column, error }) => ({
      severity: 'error',
      place: { line, column },
      ...explain(error),
    })),
    rules,
    default: fallback,
    place({ rule, value }) {
      const line = (rule === 0 ? defaultLine : lines[rule - 1]) ?? 1
      const code = text.split('\n')[line - 1] ?? ''
      const found = value === undefined ? undefined : wholeWord(value).exec(code)?.index
      return { line, column: (found ?? code.search(/\S/)) + 1 }
    },
  }
}

const unreadables: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  ENOTDIR: 'no such file',
  EISDIR: 'is a directory, not a file',
  EACCES: 'you may not read it',
}

/** Why a file cannot be read. */
export function unreadable(error: unknown): string {
  return unreadables[(error as NodeJS.ErrnoException).code ?? ''] ?? reason(error)
}
