import { expect, it } from 'vitest'
import { printable, scrub } from './scrub.ts'

it('removes users and passwords, with or without a scheme', () => {
  expect(scrub('via socks5://u:p@ss@h:1080 failed')).toBe('via socks5://h:1080 failed')
  expect(scrub('proxy=bob:hunter2@proxy.example:1080')).toBe('proxy=proxy.example:1080')
})

it('leaves other text alone', () => {
  const text = 'connect ECONNREFUSED 192.0.2.1:80, [2001:db8::1]:80: ask root@example.com (12:00:01)'
  expect(scrub(text)).toBe(text)
})

it('shows control characters as question marks', () => {
  expect(printable('\u001b[2Jx\n')).toBe('?[2Jx?')
})
