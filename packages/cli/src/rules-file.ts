import { readFileSync } from 'node:fs'
import { type Action, parseRule, type Rule, readRuleLines, reason } from '@tproxy/core'
import type { RuleSource } from './options.ts'

/** What texts and files of rules come to. */
export interface GivenRules {
  readonly rules: readonly Rule[]
  /** Where none matches; undefined when no line says so. */
  readonly default: Action | undefined
  /** What does not parse, with file, line and column; or cannot be read. */
  readonly problems: readonly string[]
}

/** Reads `--rule` and `--rules` in the order given. */
export function readRules(sources: readonly RuleSource[]): GivenRules {
  const lists = sources.map((source) => ('text' in source ? readText(source.text) : readFile(source.file)))
  return {
    rules: lists.flatMap(({ rules }) => rules),
    default: lists.findLast((list) => list.default !== undefined)?.default,
    problems: lists.flatMap(({ problems }) => problems),
  }
}

const nothing: GivenRules = { rules: [], default: undefined, problems: [] }

function readText(text: string): GivenRules {
  try {
    return { ...nothing, rules: [parseRule(text)] }
  } catch (error) {
    return { ...nothing, problems: [reason(error)] }
  }
}

function readFile(file: string): GivenRules {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    return { ...nothing, problems: [`--rules ${file}: ${unreadable(error)}`] }
  }
  const { problems, ...list } = readRuleLines(text, file)
  return { ...nothing, ...list, problems: problems.map(reason) }
}

/** Why a file cannot be read. */
export function unreadable(error: unknown): string {
  return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file' : reason(error)
}
