import { expect, test } from 'vitest'
import { direct, via } from './verdict.ts'

const upstream = { name: 'u', connect: () => Promise.reject(new Error('never')) }

test.each([
  [() => via(undefined as never), 'via: no upstream is given (an upstream has connect'],
  [() => via(5 as never), 'via: no upstream is given'],
  [() => via('socks5://192.0.2.1' as never), 'via: no upstream is given'],
  [() => via({ name: 'u' } as never), 'via: no upstream is given'],
  [() => via(upstream, { transform: {} as never }), 'transform is no function (give'],
  [() => direct({ transform: 5 as never }), 'transform is no function'],
  [() => direct({ transform: null as never }), 'transform is no function'],
])('what makes no verdict is refused where it is said: %s', (make, message) => {
  expect(make).toThrow(
    expect.objectContaining({ code: 'E_OPTION', message: expect.stringContaining(message) }),
  )
})

test('an upstream may be of any kind that connects', () => {
  const callable = Object.assign(() => {}, { connect: upstream.connect })
  for (const each of [upstream, callable, Object.create(upstream)])
    expect(via(each as never)).toEqual({ kind: 'via', upstream: each })
})
