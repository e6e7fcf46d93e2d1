import { expect, it } from 'vitest'
import { reasonAndPlace } from './thrown-at.ts'

const thrown = (stack: string) => reasonAndPlace(Object.assign(new Error('boom'), { stack }))

it('tells the first place of a stack that is not in Node', () => {
  expect(thrown('/a/x.ts:7\n\nlet = 1\n    ^\n\nSyntaxError: boom\n    at parse (node:internal/x:1:2)')).toBe(
    'boom (at /a/x.ts:7)',
  )
  const calls = [
    'at listOnTimeout (node:internal/timers:605:17)',
    'at f (file:///a%20b/x.ts:3:9)',
    'at /c.js:1:1',
  ]
  expect(thrown(`Error: boom /not/here:1\n    ${calls.join('\n    ')}`)).toBe('boom (at /a b/x.ts:3:9)')
  expect(thrown('Error: boom\n    at async file:///c.js:1:1')).toBe('boom (at /c.js:1:1)')
  expect(thrown('Error: boom\n    at node:internal/timers:605:17')).toBe('boom')
  expect(reasonAndPlace('boom')).toBe('boom')
})

it('is not misled by what somebody has put into the stack, or into the message', () => {
  expect(thrown([{}] as never)).toBe('boom')
  expect(thrown('Error: boom\n    at f (file:///a%2Fb:1:2)')).toBe('boom (at file:///a%2Fb:1:2)')
  const message = `answer:\n    at /not/here.ts:1:1\n    at ${' (/'.repeat(30_000)}`
  const error = Object.assign(new Error(message), { stack: `Error: ${message}\n    at /here.ts:3:4` })
  const before = performance.now()
  expect(reasonAndPlace(error)).toMatch(/ \(at \/here\.ts:3:4\)$/)
  expect(performance.now() - before).toBeLessThan(200)
})
