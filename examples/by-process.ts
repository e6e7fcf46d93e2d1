// A plugin: each program takes its own way.
//
//   ./tproxy-run --interface eth0 --plugin ./examples/by-process.ts=socks5://192.0.2.1:1080
//
// curl goes through the proxy, what root runs goes directly, telnet goes nowhere, and the next plugin is asked about
// everything else.
import { direct, drop, type Plugin, via } from '@tproxy/core'
import { socksUpstream } from '@tproxy/plugin-socks'

export default function byProcess({ argument = 'socks5://127.0.0.1:1080' }: { argument?: string }): Plugin {
  const upstream = socksUpstream(argument)
  return Object.assign(
    function byProcess({ process }: Parameters<Plugin>[0]) {
      if (process?.name === 'curl') return via(upstream)
      if (process?.name === 'telnet') return drop()
      if (process?.uid === 0) return direct()
      return undefined
    },
    // Named beforehand, so that a proxy that runs on this host is kept out of its own way.
    { upstreams: [upstream] },
  )
}
