import { expect, test } from 'vitest'
import { reason } from './errors.ts'

test.each([
  [new Error('one\n  two \r\n\n three'), 'one two three'],
  [new AggregateError([new Error('one'), 'two\n']), 'one; two '],
  ['text  with   spaces', 'text  with   spaces'],
])('the reason is on one line (%#)', (error, text) => {
  expect(reason(error)).toBe(text)
})

test('the reason is there at once, whatever a peer has written', () => {
  const start = performance.now()
  reason(new Error(`the proxy answered 500 ${' '.repeat(64_000)}x`))
  expect(performance.now() - start).toBeLessThan(200)
})
