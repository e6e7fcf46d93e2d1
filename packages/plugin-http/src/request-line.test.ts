import { createServer, METHODS } from 'node:http'
import { duplexPair } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { looksLikeHttp } from './request-line.ts'

describe('the first bytes of a connection', () => {
  test.each([
    'GET / HTTP/1.1\r\n',
    'GET /a?b=c HTTP/1.0\r\n',
    '\r\nM-SEARCH * HTTP/1.1\r\nHost: x',
    'POST http://a/ HTTP/1.1\r\n',
    'OPTIONS * HTTP/1.1\r\n',
    'GET http://user@[::1]:80?q HTTP/1.1\r\n',
    'GET /a|b{c}"<\\>^`#d#?e HTTP/1.1\r\n',
  ])('%j are HTTP, and so may become all their beginnings', (text) => {
    expect(looksLikeHttp(Buffer.from(text, 'latin1'))).toBe(true)
    const line = text.indexOf('\n', 3)
    for (let length = 0; length < line; length++)
      expect(looksLikeHttp(Buffer.from(text.slice(0, length)))).toBeUndefined()
  })

  test.each([
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'QUIT\r\n',
    'GET /\r\n',
    'HELO there HTTP\r\n',
    '\x16\x03\x01\x02\x00',
    '{"jsonrpc": 2}',
    ' GET / HTTP/1.1\r\n',
    'GET / HTTP/1.0\nHost: x\n\n',
    'GET / HTTP/1.1\n',
    'VERSION-CONTROL /a HTTP/1.1\r\n',
    'VERSION',
    'get / HTTP/1.1\r\n',
    'GET /\xc3\xbc',
    'GET /\x7f',
    'GET ?a',
    'GET  / HTTP/1.1\r\n',
    'GET http:/a HTTP/1.1\r\n',
    'CONNECT a:80 HTTP/1.1\r\n',
    `${'A'.repeat(65)}`,
    `GET /${'a'.repeat(20_000)}`,
  ])('%j are not HTTP', (text) => {
    expect(looksLikeHttp(Buffer.from(text, 'latin1'))).toBe(false)
  })
})

/** Whether node's server makes a request of a line. */
function taken(line: string): boolean {
  let requests = 0
  const server = createServer({ requireHostHeader: false }, () => requests++)
  server.on('clientError', (_, stream) => stream.destroy())
  const [, far] = duplexPair()
  server.emit('connection', far)
  far.emit('data', Buffer.from(`${line}Host: a\r\n\r\n`, 'latin1'))
  far.destroy()
  return requests > 0
}

test('what is said to be HTTP, node’s parser takes', () => {
  const part = fc.string({
    unit: fc.constantFrom(...Array.from('abZ9/:@?#[]*.%&"<\\^`{|}~_- \xff')),
    maxLength: 8,
  })
  const line = fc
    .tuple(
      fc.constantFrom('', '\r\n', '\n', '\r\n\r\n', '\n\r\n'),
      fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...METHODS) }, part),
      fc.constantFrom(' ', ' ', ' ', '  '),
      fc.constantFrom('/', '/', '*', '', 'http://', 'x://', 'h2://'),
      part,
      part,
      fc.constantFrom('1.1', '1.0', '1.0', '2.0'),
      fc.constantFrom('\r\n', '\r\n', '\r\n', '\n'),
    )
    .map(([empty, method, gap, start, one, two, version, end]) =>
      [empty, method, gap, start, one, two, ' HTTP/', version, end].join(''),
    )
  let http = 0
  fc.assert(
    fc.property(line, (text) => {
      if (!looksLikeHttp(Buffer.from(text, 'latin1'))) return
      http++
      expect(taken(text)).toBe(true)
    }),
    { numRuns: 3000 },
  )
  expect(http).toBeGreaterThan(100)
})
