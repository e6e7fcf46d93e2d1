import { readFileSync } from 'node:fs'
import { parseRule, type Rule, reason, TproxyError } from '@tproxy/core'
import type { RuleSource } from './options.ts'

/** Reads `--rule` and `--rules` in the order given. Throws `E_RULE` with file, line and column. */
export function readRules(sources: readonly RuleSource[]): Rule[] {
  return sources.flatMap((source) => ('text' in source ? [parseRule(source.text)] : readFile(source.file)))
}

function readFile(file: string): Rule[] {
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
  return parseRules(text, file)
}

/** One rule a line; `#` begins a comment. */
export function parseRules(text: string, file: string): Rule[] {
  return text.split(/\r?\n/).flatMap((line, index) => {
    // Not trimmed at the left: columns are those of the file.
    const rule = line.replace(/#.*/, '').trimEnd()
    if (rule === '') return []
    try {
      return [parseRule(rule)]
    } catch (cause) {
      throw new TproxyError('E_RULE', `${file}:${index + 1}: ${reason(cause)}`, { cause })
    }
  })
}
