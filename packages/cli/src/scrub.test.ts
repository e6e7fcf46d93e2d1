import { expect, it } from 'vitest'
import { printable, scrub } from './scrub.ts'

it('removes users and passwords, with or without a scheme', () => {
  expect(scrub('via socks5://u:p@ss@h:1080 failed')).toBe('via socks5://h:1080 failed')
  expect(scrub('proxy=bob:hunter2@proxy.example:1080')).toBe('proxy=proxy.example:1080')
  expect(scrub('(a:b,bob:h=u(n:ter2@[::1]:80, =::x:hunter2@h, :hunter2@h)')).toBe('([::1]:80, =h, h)')
})

it.each([
  ['socks5://user:se/cret@h:1080', 'socks5://h:1080'],
  ['socks5://user:se cret@[::1]:1080 failed', 'socks5://[::1]:1080 failed'],
  ['socks5://a:p?q@h1,socks5://b:#@r@h2', 'socks5://h1,socks5://h2'],
])('removes what has a password that needed escapes: %s', (text, shown) => {
  expect(scrub(text)).toBe(shown)
})

it.each([
  'a',
  'a:',
  'a://',
  'a://b:c d',
  'a://b:c/d@',
  'a://,',
  'a://b:,',
  '(a:b',
  'a://b:c@',
  'a:b@ ',
  '=a:@',
])('takes no time for a text of many %j, as a peer may choose it', (text) => {
  const start = performance.now()
  scrub(text.repeat(64_000 / text.length))
  expect(performance.now() - start).toBeLessThan(200)
})

it('leaves other text alone', () => {
  const text = 'connect ECONNREFUSED 192.0.2.1:80, [2001:db8::1]:80: ask root@example.com (12:00:01)'
  expect(scrub(text)).toBe(text)
  for (const said of [
    'socks5://h: refused',
    '(http://h:80), or',
    '"http://h:3128": connect',
    'socks5://h, as',
  ])
    expect(scrub(`via ${said} root@example.com`)).toBe(`via ${said} root@example.com`)
  for (const url of [
    'http://localhost:4873/@scope/x',
    'https://[::1]/@x',
    'file:///srv/@tproxy/core/a.ts:12:3',
  ])
    expect(scrub(`see ${url}: ask a@b.example`)).toBe(`see ${url}: ask a@b.example`)
})

it('shows control characters as question marks', () => {
  expect(printable('\u001b[2Jx\n')).toBe('?[2Jx?')
})
