import { definePlugin, drop, via } from '@tproxy/core'
import { socksUpstream } from '@tproxy/plugin-socks'
import { z } from 'zod'

/** One domain goes through a SOCKS proxy, mail goes nowhere, and about the rest the next plugin is asked. */
export default definePlugin({
  name: 'office',
  options: z.object({
    url: z.string().describe('the URL of a SOCKS proxy, such as socks5://192.0.2.1:1080'),
    domain: z.string().default('example.org').describe('a domain'),
  }),
  argument: 'url',
  create({ url, domain }) {
    const upstream = socksUpstream(url, { names: true })
    return {
      upstreams: [upstream],
      async decide(connection) {
        if (connection.destination.port === 25) return drop()
        const { name } = await connection.peek()
        return name === domain ? via(upstream) : undefined
      },
    }
  },
})
