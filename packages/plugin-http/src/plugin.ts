import { type Plugin, type PluginFactory, via } from '@tproxy/core'
import { parseProxy } from './proxy-url.ts'
import { type HttpUpstreamOptions, httpUpstream } from './upstream.ts'

/** The options of {@link http}. */
export interface HttpOptions extends HttpUpstreamOptions {
  /** See `httpUpstream`. */
  readonly url: string
}

/** A plugin that sends every connection through the HTTP proxy at `url`. Throws `E_OPTION` when that is unusable. */
export function http(options: HttpOptions): Plugin {
  // No options at all are no URL, which the upstream complains of.
  const { url, ...how } = Object(options) as HttpOptions
  const upstream = httpUpstream(url, how)
  return Object.assign(
    function http() {
      return via(upstream)
    },
    { upstreams: [upstream] },
  )
}

// The order matters only where they differ: most connections are https.
const variables = ['HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy']

/**
 * What `--plugin http[=URL]` loads. Without a URL it takes the first of `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY`, in
 * either case, that names no SOCKS proxy, which is for the other plugin, else `http://127.0.0.1:3128`, where squid listens.
 * `host:3128`, `:3128` and `3128` mean http, here and on this host.
 */
const factory: PluginFactory = ({ argument, env = process.env }) =>
  http({ url: local(argument?.trim()) || fromEnvironment(env) || 'http://127.0.0.1:3128' })

export default factory

/** Throws `E_OPTION` for what is no URL: going to the usual port instead would be a surprise. */
function fromEnvironment(env: NodeJS.ProcessEnv): string | undefined {
  for (const name of variables) {
    const url = env[name]
    if (!url || /^socks\w*:\/\//i.test(url)) continue
    parseProxy(url, `${name}: HTTP proxy`)
    return url
  }
  return undefined
}

function local(text: string | undefined): string | undefined {
  return text && /^:?\d+$/.test(text) ? `http://127.0.0.1:${text.replace(':', '')}` : text
}
