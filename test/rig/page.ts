// Pages of documentation whose snippets are run.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import { expect } from 'vitest'

/** A fenced block of a page: ```language file */
export interface Block {
  readonly language: string
  readonly file: string
  readonly text: string
}

export function blocks(page: string): Block[] {
  const path = fileURLToPath(new URL(`../../docs/${page}`, import.meta.url))
  return [...readFileSync(path, 'utf8').matchAll(/^```(\w*) ?(\S*)\n([^]*?)^```$/gm)].map(
    ([, language = '', file = '', text = '']) => ({ language, file, text }),
  )
}

/** Whether lines were printed in this order; … stands for anything, and other lines may come between. */
export function expectLines(output: string, expected: string): void {
  const lines = expected.trimEnd().split('\n')
  const patterns = lines.map((line) =>
    line
      .split('…')
      .map((part) => RegExp.escape(part.trim()).replaceAll(/(\\x20| )+/g, ' +'))
      .join('.*'),
  )
  expect(stripVTControlCharacters(output)).toMatch(new RegExp(patterns.join('[^]*\n.*')))
}
