import { expect, it } from 'vitest'
import { jsonLine } from './json-line.ts'
import { JsonReport } from './json-report.ts'
import { Output } from './output.ts'

it('leaves nothing in JSON that a terminal obeys, and says the same', () => {
  const texts = Array.from({ length: 0x100 }, (_, code) => String.fromCharCode(code))
  const line = jsonLine({ [texts.join('')]: texts, more: '名\u009b2J' })
  expect(line).not.toMatch(/\p{Cc}/u)
  expect(line).toContain('名\\u009b2J')
  expect(JSON.parse(line)).toEqual({ [texts.join('')]: texts, more: '名\u009b2J' })
  expect(JSON.parse(jsonLine({ a: ['b', 1] }, (text) => text.toUpperCase()))).toEqual({ a: ['B', 1] })
})

it('events are such lines', () => {
  const lines: string[] = []
  const output = new Output(1)
  output.line = (text) => void lines.push(text)
  new JsonReport(output, 'normal').warning('socks5://a:b@h says \u009b2J\u007f')
  expect(lines).toEqual([expect.stringMatching(/"socks5:\/\/h says \\u009b2J\\u007f"\}$/)])
})
