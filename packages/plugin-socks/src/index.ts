/**
 * Send intercepted connections through SOCKS proxies.
 *
 * @example
 * ```ts
 * import { TransparentProxy } from '@tproxy/core'
 * import { socks } from '@tproxy/plugin-socks'
 *
 * await using proxy = await TransparentProxy.open({
 *   interfaces: ['eth0'],
 *   plugins: [socks({ url: 'socks5://127.0.0.1:1080' })],
 * })
 * ```
 *
 * @module
 */
export { default, type SocksOptions, socks } from './plugin.ts'
export { type SocksUpstreamOptions, socksUpstream } from './upstream.ts'
