import { type Plugin, type PluginFactory, via } from '@tproxy/core'
import { hasSocksScheme } from './proxy-url.ts'
import { type SocksUpstreamOptions, socksUpstream } from './upstream.ts'

/** The options of {@link socks}. */
export interface SocksOptions extends SocksUpstreamOptions {
  /** One proxy, or a chain: see `socksUpstream`. */
  readonly url: string | readonly string[]
}

/** A plugin that sends every connection through the SOCKS proxy at `url`. Throws `E_OPTION` when that is unusable. */
export function socks({ url, ...options }: SocksOptions): Plugin {
  const upstream = socksUpstream(url, options)
  return Object.assign(
    function socks() {
      return via(upstream)
    },
    { upstreams: [upstream] },
  )
}

/**
 * What `--plugin socks[=URL[,URL…]]` loads. Without a URL it takes `ALL_PROXY` or `all_proxy` if that names a SOCKS
 * proxy, else `socks5://127.0.0.1:1080`. `host:1080`, `:1080` and `1080` mean SOCKS5, here and on this host.
 */
const factory: PluginFactory = ({ argument, env = process.env }) =>
  socks({
    url: argument
      ? argument.split(',').map((part) => withScheme(part.trim()))
      : ([env['ALL_PROXY'], env['all_proxy']].find((url) => url && hasSocksScheme(url)) ??
        'socks5://127.0.0.1:1080'),
  })

export default factory

function withScheme(text: string): string {
  if (text === '' || text.includes('://')) return text
  if (/^:?\d+$/.test(text)) return `socks5://127.0.0.1:${text.replace(':', '')}`
  return `socks5://${text}`
}
