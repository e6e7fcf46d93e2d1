import { type Plugin, type PluginFactory, via } from '@tproxy/core'
import { parseChain } from './proxy-url.ts'
import { type SocksUpstreamOptions, socksUpstream } from './upstream.ts'

/** The options of {@link socks}. */
export interface SocksOptions extends SocksUpstreamOptions {
  /** One proxy, or a chain: see `socksUpstream`. */
  readonly url: string | readonly string[]
}

/** A plugin that sends every connection through the SOCKS proxy at `url`. Throws `E_OPTION` when that is unusable. */
export function socks(options: SocksOptions): Plugin {
  // No options at all are no URL, which the upstream complains of.
  const { url, ...how } = Object(options) as SocksOptions
  const upstream = socksUpstream(url, how)
  return Object.assign(
    function socks() {
      return via(upstream)
    },
    { upstreams: [upstream] },
  )
}

const variables = ['ALL_PROXY', 'all_proxy']

/**
 * What `--plugin socks[=URL[,URL…]]` loads. Without a URL it takes `ALL_PROXY` or `all_proxy`, unless that names an HTTP
 * proxy, which is for the other plugin, else `socks5://127.0.0.1:1080`. `host:1080`, `:1080` and `1080` mean SOCKS5, here and
 * on this host.
 */
const factory: PluginFactory = ({ argument, env = process.env }) =>
  socks({
    url: argument
      ? argument.split(',').map((part) => withScheme(part.trim()))
      : (fromEnvironment(env) ?? 'socks5://127.0.0.1:1080'),
  })

export default factory

/** Throws `E_OPTION` for what is no URL: going to the usual port instead would be a surprise. */
function fromEnvironment(env: NodeJS.ProcessEnv): string | undefined {
  for (const name of variables) {
    const url = env[name]
    if (!url || /^https?:\/\//i.test(url)) continue
    parseChain(url, `${name}: SOCKS proxy`)
    return url
  }
  return undefined
}

function withScheme(text: string): string {
  if (text === '' || text.includes('://')) return text
  if (/^:?\d+$/.test(text)) return `socks5://127.0.0.1:${text.replace(':', '')}`
  return `socks5://${text}`
}
