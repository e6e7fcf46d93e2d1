/**
 * Send intercepted connections through HTTP proxies.
 *
 * @example
 * ```ts
 * import { TransparentProxy } from '@tproxy/core'
 * import { http } from '@tproxy/plugin-http'
 *
 * await using proxy = await TransparentProxy.open({
 *   interfaces: ['eth0'],
 *   plugins: [http({ url: 'http://127.0.0.1:3128' })],
 * })
 * ```
 *
 * @module
 */
export { default, type HttpOptions, http } from './plugin.ts'
export type { Authority } from './request-head.ts'
export { type HttpUpstreamOptions, httpUpstream } from './upstream.ts'
