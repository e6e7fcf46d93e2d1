import { expect, it } from 'vitest'
import { parseRules } from './rules-file.ts'

it('reads one rule a line, without comments and empty lines', () => {
  expect(parseRules('# mail\ndrop tcp dport 25\n\ndirect to 10.0.0.0/8 # inside\r\n', 'f')).toEqual([
    { action: 'drop', dport: [[25, 25]] },
    { action: 'direct', to: ['10.0.0.0/8'] },
  ])
})

it('names file, line and column of an error', () => {
  expect(() => parseRules('drop dport 1\n  drop foo', 'my.rules')).toThrow(/^my\.rules:2: .*column 8, "foo"/)
})
