import { describe, expect, test } from 'vitest'
import socksPlugin, { socks, socksUpstream } from './index.ts'

async function upstreamOf(
  argument: string | undefined,
  env: NodeJS.ProcessEnv = {},
): Promise<string | undefined> {
  const plugin = await socksPlugin({ ...(argument === undefined ? {} : { argument }), env })
  return plugin.upstreams?.[0]?.name
}

describe('the socks plugin', () => {
  test('sends everything through its upstream, and says so beforehand', async () => {
    const plugin = socks({ url: 'socks5://jo:hunter2@192.0.2.1' })
    expect(plugin.name).toBe('socks')
    expect(plugin.upstreams).toHaveLength(1)
    expect(await plugin({} as never)).toEqual({ kind: 'via', upstream: plugin.upstreams?.[0] })
  })

  test.each([
    ['socks4://192.0.2.1', 'socks4://192.0.2.1:1080'],
    ['proxy.example:9050', 'socks5://proxy.example:9050'],
    ['proxy.example', 'socks5://proxy.example:1080'],
    ['jo:pw@proxy.example', 'socks5://proxy.example:1080'],
    ['[::1]:9050', 'socks5://[::1]:9050'],
    [':9050', 'socks5://127.0.0.1:9050'],
    ['9050', 'socks5://127.0.0.1:9050'],
    ['9050,socks4://b', 'socks5://127.0.0.1:9050 → socks4://b:1080'],
  ])('takes %s as its argument', async (argument, name) => {
    expect(await upstreamOf(argument, { ALL_PROXY: 'socks5://192.0.2.9' })).toBe(name)
  })

  test('takes its URL from the environment when that names a SOCKS proxy', async () => {
    expect(await upstreamOf(undefined, { ALL_PROXY: 'socks5h://192.0.2.9' })).toBe('socks5://192.0.2.9:1080')
    expect(await upstreamOf('', { all_proxy: 'socks4a://192.0.2.9' })).toBe('socks4://192.0.2.9:1080')
    const both = { ALL_PROXY: 'http://192.0.2.1', all_proxy: 'socks5://192.0.2.9' }
    expect(await upstreamOf(undefined, both)).toBe('socks5://192.0.2.9:1080')
  })

  test.each([
    ['socks5://:hunter2:', /^ALL_PROXY: SOCKS proxy: the URL does not parse \(write socks5:/],
    ['hunter2 bar', /^ALL_PROXY: SOCKS proxy: the URL does not parse/],
    ['jo:hunter2@h:1080', /^ALL_PROXY: SOCKS proxy: the URL has no scheme/],
    ['ftp://jo:hunter2@h', /^ALL_PROXY: SOCKS proxy: the scheme is not SOCKS/],
    ['socks5://a,', /^ALL_PROXY: SOCKS proxy 2: the URL is empty/],
  ])('refuses %s in the environment, and names the variable', async (ALL_PROXY, message) => {
    const error = await upstreamOf(undefined, { ALL_PROXY }).catch((cause: Error) => cause)
    expect(error).toMatchObject({ code: 'E_OPTION', message: expect.stringMatching(message) })
    expect(String(error)).not.toMatch(/hunter2/)
  })

  test('refuses to be made without a URL', () => {
    const none = expect.objectContaining({
      code: 'E_OPTION',
      message: expect.stringMatching(/no URL is given \(/),
    })
    expect(() => (socks as () => void)()).toThrow(none)
    for (const url of [undefined, null, 5, {}, [5], [undefined]]) {
      expect(() => socks({ url: url as never })).toThrow(none)
      expect(() => socksUpstream(url as never)).toThrow(none)
    }
  })

  test('falls back to the usual local port', async () => {
    expect(await upstreamOf(undefined)).toBe('socks5://127.0.0.1:1080')
    expect(await upstreamOf(undefined, { ALL_PROXY: 'http://192.0.2.1' })).toBe('socks5://127.0.0.1:1080')
  })
})
