import { endpoint } from '@tproxy/core'
import { describe, expect, test } from 'vitest'
import { type Authority, requestHead } from './request-head.ts'

const v4 = endpoint('93.184.216.34', 80)
const v6 = endpoint('2001:db8::1', 8080)

function target(
  url: string,
  host: string[],
  policy: Authority = 'host',
  to = v4,
  method = 'GET',
): string | undefined {
  const rawHeaders = host.flatMap((value) => ['Host', value])
  const head = requestHead({ method, url, rawHeaders }, to, policy)
  if (head) expect(head.target).toContain(`http://${String(head.headers['Host'])}`)
  return head?.target
}

describe('the target of a forwarded request', () => {
  test.each([
    ['/', ['example.com'], 'http://example.com/'],
    ['/a//b/../c?u=http://x//y%20', ['example.com'], 'http://example.com/a//b/../c?u=http://x//y%20'],
    ['/', ['Example_1.com.:8080'], 'http://Example_1.com./'],
    ['/', ['localhost.example'], 'http://localhost.example/'],
    ['/', ['7.example'], 'http://7.example/'],
    ['http://named.example:99/x', ['other.example'], 'http://named.example/x'],
    ['http://named.example?q', [], 'http://named.example?q'],
    ['http://named.example', [], 'http://named.example/'],
    ['//evil.example/x', ['example.com'], 'http://example.com//evil.example/x'],
    ['/\\evil.example@x:22#y', ['example.com'], 'http://example.com/\\evil.example@x:22#y'],
    // A claim with a user is none: the address stands in its place.
    ['http://example.com@evil.example:22/x', ['example.com'], 'http://93.184.216.34/x'],
    ['http:///x', ['example.com'], 'http://93.184.216.34/x'],
  ])('%s with Host %j is named as %s', (url, host, expected) => {
    expect(target(url, host)).toBe(expected)
  })

  test.each([
    [[]],
    [['']],
    [['a b']],
    [['a/b']],
    [['user@host']],
    [['[::x]']],
    [['192.0.2.1']],
    [['127.0.0.1:6379']],
    [['[2001:db8::2]:81']],
    [['127.1']],
    [['2130706433']],
    [['0x7f.0.0.0x1.']],
    [['localhost']],
    [['Localhost.:80']],
    [['db.localhost']],
    [['.']],
    [['a', 'b']],
    [['x'.repeat(256)]],
  ])('is the original destination when Host is %j', (host) => {
    expect(target('/', host)).toBe('http://93.184.216.34/')
    expect(target('/', host, 'host', v6)).toBe('http://[2001:db8::1]:8080/')
  })

  test('is an address in its own spelling when Host is that', () => {
    expect(target('/', ['93.184.216.34'])).toBe('http://93.184.216.34/')
    expect(target('/', ['[2001:DB8:0::1]:8080'], 'host', v6)).toBe('http://[2001:db8::1]:8080/')
  })

  test('is the original destination when the target itself has an address', () => {
    expect(target('http://127.0.0.1/x', ['example.com'])).toBe('http://93.184.216.34/x')
  })

  test('always has the port of the original destination', () => {
    expect(target('/', ['example.com:25'], 'host', v6)).toBe('http://example.com:8080/')
  })

  test('is the original destination whatever the client claims, if the policy says so', () => {
    expect(target('/x', ['example.com'], 'destination')).toBe('http://93.184.216.34/x')
    expect(target('http://example.com/x', ['example.com'], 'destination', v6)).toBe(
      'http://[2001:db8::1]:8080/x',
    )
  })

  test('has no path when a request is about the server itself', () => {
    expect(target('*', ['example.com'], 'host', v4, 'OPTIONS')).toBe('http://example.com')
  })

  test('is refused when it has another scheme', () => {
    expect(target('https://example.com/', ['example.com'])).toBeUndefined()
  })

  // What begins neither a path nor a query would continue the authority: another host, port or user.
  test.each([
    '*@evil.example:22/secret',
    '*.evil.example/x',
    '*:8080/',
    '**',
    '*',
    '@evil.example:22/',
    ':22/',
    '.evil.example/',
    'evil.example:22',
    '\\evil.example/',
    'http:/evil.example/',
    'http:\\\\evil.example/',
    '#@evil.example/',
    'http://example.com#@evil.example/',
    '\t/',
    '',
  ])('is refused when it is %j', (url) => {
    for (const policy of ['host', 'destination'] as const)
      for (const to of [v4, v6]) expect(target(url, ['example.com'], policy, to)).toBeUndefined()
  })

  test('is refused when more than * is asked about the server itself', () => {
    expect(target('*@evil.example:22/', ['example.com'], 'host', v4, 'OPTIONS')).toBeUndefined()
  })
})

test('headers keep their spelling and repetition, except those that end at the first hop', () => {
  const head = requestHead(
    {
      method: 'POST',
      url: '/',
      rawHeaders: (
        'Host example.com X-Twice 1 Connection close,x-hop,content-length x-twice 2 X-Hop 1 Keep-Alive 1 ' +
        'TE trailers Upgrade h2c HTTP2-Settings x Proxy-Authorization x Content-Length 3 Expect 100-continue Cookie a=b'
      ).split(' '),
    },
    v4,
    'host',
  )
  expect(head?.headers).toEqual({
    Host: 'example.com',
    'X-Twice': ['1', '2'],
    'Content-Length': '3',
    Cookie: 'a=b',
  })
})

test.each([
  [[], false],
  [['Content-Length', '2'], false],
  [['Transfer-Encoding', 'gzip'], false],
  [['Transfer-Encoding', 'gzip, Chunked'], true],
  [['Transfer-Encoding', 'gzip', 'transfer-encoding', 'chunked'], true],
])('a Trailer beside %j passes: %j', (framing, passes) => {
  const rawHeaders = ['Host', 'a', 'Trailer', 'X-Sum', ...framing]
  const head = requestHead({ method: 'POST', url: '/', rawHeaders }, v4, 'host')
  expect(Object.hasOwn(head?.headers ?? {}, 'Trailer')).toBe(passes)
})
