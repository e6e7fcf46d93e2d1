import { expect, it } from 'vitest'
import { readRules } from './rules-file.ts'

it('keeps the order of the command line', () => {
  expect(readRules([{ text: 'drop tcp dport 25' }, { text: 'direct to 10.0.0.0/8' }])).toEqual({
    rules: [
      { action: 'drop', protocol: 'tcp', dport: 25 },
      { action: 'direct', to: '10.0.0.0/8' },
    ],
    default: undefined,
    problems: [],
  })
})

it('tells at once what does not parse and what is missing', () => {
  const { problems } = readRules([{ file: '/nonexistent' }, { text: 'drop dport x' }])
  expect(problems).toEqual([
    '--rules /nonexistent: no such file',
    expect.stringContaining('at column 12: expected a port'),
  ])
})
