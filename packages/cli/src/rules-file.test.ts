import { expect, it } from 'vitest'
import { readRules } from './rules-file.ts'

it('keeps the order of the command line', () => {
  expect(readRules([{ text: 'drop tcp dport 25' }, { text: 'direct to 10.0.0.0/8' }])).toEqual({
    rules: [
      { action: 'drop', protocol: 'tcp', dport: 25 },
      { action: 'direct', to: '10.0.0.0/8' },
    ],
    default: undefined,
  })
})

it('names a file that is missing', () => {
  expect(() => readRules([{ file: '/nonexistent' }])).toThrow('--rules /nonexistent: no such file')
})
