import { readFileSync } from 'node:fs'
import { type Action, parseRule, parseRuleList, type Rule, reason, TproxyError } from '@tproxy/core'
import type { RuleSource } from './options.ts'

/** What the rules on the command line come to. */
export interface GivenRules {
  readonly rules: readonly Rule[]
  /** Where none matches; undefined when no line says so. */
  readonly default: Action | undefined
}

/** Reads `--rule` and `--rules` in the order given. Throws `E_RULE` with file, line and column. */
export function readRules(sources: readonly RuleSource[]): GivenRules {
  const lists = sources.map((source) =>
    'text' in source ? { rules: [parseRule(source.text)] } : readFile(source.file),
  )
  return {
    rules: lists.flatMap(({ rules }) => rules),
    default: lists.findLast((list) => 'default' in list)?.default,
  }
}

function readFile(file: string): ReturnType<typeof parseRuleList> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new TproxyError(
      'E_OPTION',
      `--rules ${file}: ${code === 'ENOENT' ? 'no such file' : reason(cause)}`,
      {
        cause,
      },
    )
  }
  return parseRuleList(text, file)
}
