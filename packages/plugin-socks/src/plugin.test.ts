import { describe, expect, test } from 'vitest'
import socksPlugin, { socks } from './index.ts'

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

  test('falls back to the usual local port', async () => {
    expect(await upstreamOf(undefined)).toBe('socks5://127.0.0.1:1080')
    expect(await upstreamOf(undefined, { ALL_PROXY: 'http://192.0.2.1' })).toBe('socks5://127.0.0.1:1080')
  })
})
