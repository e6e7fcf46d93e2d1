// A plugin: each program takes its own way.
//
// In a configuration file beside this one:
//
//   plugins:
//     - name: ./by-process.ts
//       options:
//         programs: { curl: 'socks5://192.0.2.1:1080', git: 'http://192.0.2.2:3128', telnet: drop, apt: direct }
//
// A program is named as the kernel names it, by at most 15 characters of its file's name. About all others, the next plugin
// is asked.
import { definePlugin, direct, drop, via } from '@tproxy/core'
import { httpUpstream } from '@tproxy/plugin-http'
import { socksUpstream } from '@tproxy/plugin-socks'
import { z } from 'zod'

export default definePlugin({
  name: 'by-process',
  options: z.object({
    programs: z
      .record(z.string(), z.string())
      .describe('a mapping from program to direct, drop or the URL of a proxy'),
  }),
  create({ programs }) {
    const ways = new Map(Object.entries(programs).map(([program, way]) => [program, verdict(way)]))
    return {
      upstreams: [...ways.values()].flatMap((way) => (way.kind === 'via' ? [way.upstream] : [])),
      decide: ({ process }) => ways.get(process?.name ?? ''),
    }
  },
})

function verdict(way: string) {
  if (way === 'direct') return direct()
  if (way === 'drop') return drop()
  return via(way.startsWith('http') ? httpUpstream(way) : socksUpstream(way))
}
