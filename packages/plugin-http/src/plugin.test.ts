import { describe, expect, test } from 'vitest'
import httpPlugin, { http, httpUpstream } from './index.ts'

async function upstreamOf(
  argument: string | undefined,
  env: NodeJS.ProcessEnv = {},
): Promise<string | undefined> {
  const plugin = await httpPlugin({ ...(argument === undefined ? {} : { argument }), env })
  return plugin.upstreams?.[0]?.name
}

describe('the http plugin', () => {
  test('sends everything through its upstream, and says so beforehand', async () => {
    const plugin = http({ url: 'http://jo:hunter2@192.0.2.1' })
    expect(plugin.name).toBe('http')
    expect(plugin.upstreams).toHaveLength(1)
    expect(await plugin({} as never)).toEqual({ kind: 'via', upstream: plugin.upstreams?.[0] })
  })

  test.each([
    ['http://192.0.2.1', 'http://192.0.2.1:80'],
    ['https://proxy.example', 'https://proxy.example:443'],
    ['proxy.example:8080', 'http://proxy.example:8080'],
    ['jo:pw@proxy.example', 'http://proxy.example:80'],
    ['[::1]:8080', 'http://[::1]:8080'],
    [':8080', 'http://127.0.0.1:8080'],
    ['8080', 'http://127.0.0.1:8080'],
  ])('takes %s as its argument', async (argument, name) => {
    expect(await upstreamOf(argument, { HTTPS_PROXY: 'http://192.0.2.9' })).toBe(name)
  })

  test.each([
    [{ HTTPS_PROXY: 'http://a', HTTP_PROXY: 'http://b' }, 'http://a:80'],
    [{ https_proxy: 'https://a' }, 'https://a:443'],
    [{ HTTP_PROXY: 'a:3128' }, 'http://a:3128'],
    [{ http_proxy: 'http://a' }, 'http://a:80'],
    [{ ALL_PROXY: 'socks5://b', all_proxy: 'http://a' }, 'http://a:80'],
    [{ ALL_PROXY: 'socks5://b' }, 'http://127.0.0.1:3128'],
    [{ HTTPS_PROXY: '' }, 'http://127.0.0.1:3128'],
  ])('takes its URL from the environment: %o', async (env, name) => {
    expect(await upstreamOf(undefined, env)).toBe(name)
  })
})

test.each([
  [{ HTTPS_PROXY: 'http://jo:hunter2@:' }, /^HTTPS_PROXY: HTTP proxy: the URL does not parse \(write http:/],
  [{ http_proxy: 'hunter2 bar' }, /^http_proxy: HTTP proxy: the URL does not parse/],
  [{ ALL_PROXY: 'ftp://jo:hunter2@h' }, /^ALL_PROXY: HTTP proxy: the scheme is not HTTP/],
])(
  'what is no URL in the environment is refused, with the name of the variable: %o',
  async (env, message) => {
    const error = await upstreamOf(undefined, env).catch((cause: Error) => cause)
    expect(error).toMatchObject({ code: 'E_OPTION', message: expect.stringMatching(message) })
    expect(String(error)).not.toMatch(/hunter2/)
  },
)

test('no URL at all is refused', () => {
  const none = expect.objectContaining({
    code: 'E_OPTION',
    message: expect.stringMatching(/no URL is given \(/),
  })
  expect(() => (http as () => void)()).toThrow(none)
  for (const url of [undefined, null, 5, ['http://a']]) {
    expect(() => http({ url: url as never })).toThrow(none)
    expect(() => httpUpstream(url as never)).toThrow(none)
  }
})

describe('an HTTP upstream', () => {
  test('shows where it is, and no credentials', () => {
    const upstream = httpUpstream('https://jo:hunter2@[::1]:8443')
    expect(upstream).toMatchObject({ name: 'https://[::1]:8443', address: { host: '::1', port: 8443 } })
    expect(JSON.stringify(upstream)).not.toMatch(/jo|hunter2/)
  })

  test.each([
    ['', /empty/],
    ['socks5://a', /scheme is not HTTP/],
    ['http://', /does not parse/],
    ['http://a:0', /port is 0/],
    ['http://a/path', /path/],
    ['http://jo:hunter2%@a', /password is not valid percent-encoding/],
    ['http://jo:x/hunter2@a', /does not parse|path/],
    ['http://jo:x#hunter2@a', /does not parse|fragment/],
    ['http://hunter2%3A:pw@a', /colon/],
    ['hunter2:hunter2@', /does not parse/],
    ['hunter2://a', /scheme/],
  ])('refuses the URL %s without showing a secret', (url, message) => {
    expect(() => httpUpstream(url)).toThrow(expect.objectContaining({ code: 'E_OPTION' }))
    try {
      httpUpstream(url)
    } catch (error) {
      const { message: text, stack, cause } = error as Error
      expect(text).toMatch(message)
      expect(JSON.stringify([text, stack, cause ?? ''])).not.toMatch(/hunter2/)
    }
  })

  test('refuses options that make no sense', () => {
    for (const options of [
      { timeoutMs: 0 },
      { plainPorts: [0] },
      { plainPorts: [1.5] },
      { authority: 'x' as never },
    ])
      expect(() => httpUpstream('http://a', options)).toThrow(expect.objectContaining({ code: 'E_OPTION' }))
  })
})
