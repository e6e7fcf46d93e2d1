import { TproxyError } from '@tproxy/core'
import { describe, expect, test } from 'vitest'
import { parseChain } from './proxy-url.ts'

function problem(url: string | string[]): TproxyError {
  try {
    parseChain(url)
  } catch (error) {
    if (error instanceof TproxyError) return error
    throw error
  }
  throw new Error(`accepted ${String(url)}`)
}

describe('a SOCKS proxy URL', () => {
  test.each([
    ['socks5://192.0.2.1:9050', 5, '192.0.2.1', 9050, 'socks5://192.0.2.1:9050'],
    ['socks5h://proxy.example', 5, 'proxy.example', 1080, 'socks5://proxy.example:1080'],
    ['socks://[2001:db8::1]', 5, '2001:db8::1', 1080, 'socks5://[2001:db8::1]:1080'],
    ['socks4://192.0.2.1/', 4, '192.0.2.1', 1080, 'socks4://192.0.2.1:1080'],
    ['socks4a://jo@proxy:1', 4, 'proxy', 1, 'socks4://proxy:1'],
    ['SOCKS5://Proxy_1.example.:1080', 5, 'Proxy_1.example.', 1080, 'socks5://Proxy_1.example.:1080'],
  ])('%s is understood', (url, version, host, port, name) => {
    expect(parseChain(url)).toMatchObject([{ version, host, port, name }])
  })

  test('has user name and password percent-decoded, and neither in its name', () => {
    const [proxy] = parseChain('socks5://j%C3%B6%40x:p%40ss%2C%2F%3A@192.0.2.1')
    expect(proxy).toMatchObject({ user: 'jö@x', password: 'p@ss,/:', name: 'socks5://192.0.2.1:1080' })
  })

  test('may list several hops, as an array or separated by commas', () => {
    expect(parseChain('socks5://a, socks4://b').map((hop) => hop.name)).toEqual([
      'socks5://a:1080',
      'socks4://b:1080',
    ])
    expect(parseChain(['socks5://a', 'socks5://u:p,w@b']).map((hop) => hop.password)).toEqual([
      undefined,
      'p,w',
    ])
  })

  test.each([
    ['', /empty/],
    ['127.0.0.1:1080', /SOCKS proxy: the URL does not parse/],
    ['localhost:1080', /no scheme/],
    ['http://127.0.0.1', /scheme is not SOCKS.*use socks5/],
    ['socks5://', /neither a name nor an address/],
    ['socks5://a:0', /port is 0/],
    ['socks5://a:65536', /does not parse/],
    ['socks5://a/path', /path/],
    ['socks5://a b', /does not parse/],
    ['socks5://a%20b', /neither a name/],
    [`socks5://${'h'.repeat(256)}`, /longer than 255/],
    ['socks5://a,', /SOCKS proxy 2: the URL is empty/],
    ['socks4://a,socks5://[::1]', /SOCKS proxy 2 has an IPv6 address behind a SOCKS4 proxy/],
  ])('%s is refused', (url, message) => {
    const error = problem(url)
    expect(error.code).toBe('E_OPTION')
    expect(error.message).toMatch(message)
    expect(error.hint).toBeTruthy()
  })

  test('is refused when the list is empty', () => {
    expect(problem([]).message).toMatch(/no SOCKS proxy/)
  })

  test.each([
    [`socks5://jo:${'hunter2'.repeat(40)}@a`, /password is longer than 255 bytes/],
    [`socks5://${'hunter2'.repeat(40)}:pw@a`, /user name is longer than 255 bytes/],
    [`socks5://jo:hunter2${'%C3%B6'.repeat(125)}@a`, /password is longer than 255 bytes/],
    ['socks4://jo:hunter2@a', /SOCKS4 has no password/],
    ['socks5://:hunter2@a', /without a user name/],
    ['socks4://hunter2%00@a', /NUL/],
    ['socks5://jo:hunter2%@a', /password is not valid percent-encoding/],
    ['socks5://jo:hunter2#@a', /does not parse|neither|query or fragment/],
    ['socks5://jo:x/hunter2@a', /does not parse|path/],
    ['socks5://jo:x?hunter2@a', /does not parse|query/],
    ['socks5://jo:x,hunter2@a', /does not parse/],
    ['hunter2:hunter2@a', /scheme/],
    ['hunter2://jo:pw@a', /scheme is not SOCKS/],
  ])('never shows a secret when it is refused (%#)', (url, message) => {
    const error = problem(url)
    expect(error.message).toMatch(message)
    expect(JSON.stringify([error.message, error.stack, error.cause ?? ''])).not.toMatch(/hunter2/)
  })
})
