// A plugin: some domains go through a proxy, and the rest goes on as if it were not there.
//
// In a configuration file beside this one:
//
//   plugins:
//     - name: ./split-by-name.ts
//       options: { url: 'socks5://192.0.2.1:1080', domains: [corp.example, intranet.test] }
//
// The name is what the program speaks of in its TLS ClientHello or HTTP request; the proxy gets it in place of the address,
// since such domains often resolve to something only on its side. With the command line alone:
//
//   ./tproxy-run --plugin ./examples/split-by-name.ts=socks5://192.0.2.1:1080 -- curl https://corp.example
import { definePlugin, via } from '@tproxy/core'
import { socksUpstream } from '@tproxy/plugin-socks'
import { z } from 'zod'

export default definePlugin({
  name: 'split-by-name',
  options: z.object({
    url: z.string().describe('the URL of a SOCKS proxy'),
    domains: z
      .array(z.string())
      .default(['corp.example'])
      .describe('a list of domains, each with all below it'),
  }),
  argument: 'url',
  create({ url, domains }) {
    const upstream = socksUpstream(url, { names: true })
    return {
      // Named beforehand, so that a proxy that runs on this host is kept out of its own way.
      upstreams: [upstream],
      async decide(connection) {
        const { name = '' } = await connection.peek()
        return domains.some((domain) => `.${name}`.endsWith(`.${domain}`)) ? via(upstream) : undefined
      },
    }
  },
})
