// The plugin of the tproxy-run under test: it decides by destination, and says on standard error what the process holds.
import { PassThrough } from 'node:stream'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { direct, type Plugin, via } from '@tproxy/core'
import { httpUpstream } from '@tproxy/plugin-http'
import { socksUpstream } from '@tproxy/plugin-socks'
import { allWays, upstreams, type Way, ways } from './ways.ts'

/** Without a connection for so long, garbage is collected, so that the heap shows what is held. */
const quietMs = 1_500

export default function soak(): Plugin {
  const over = {
    local: socksUpstream(upstreams.local),
    remote: socksUpstream(upstreams.remote),
    http: httpUpstream(upstreams.http),
    dante: socksUpstream(upstreams.dante),
  }
  const wayTo = new Map<number, Way>(allWays.map((way) => [ways[way], way]))
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  let last = performance.now()
  setInterval(() => {
    if (performance.now() - last > quietMs) collect()
    const { heapUsed, external } = process.memoryUsage()
    process.stderr.write(`${JSON.stringify({ event: 'memory', heap: heapUsed, external })}\n`)
  }, 500).unref()

  const decide: Plugin = function soak({ destination: { address } }) {
    last = performance.now()
    const way = wayTo.get(Number(/\d+$/.exec(address)?.[0])) ?? 'direct'
    if (way === 'direct' || way === 'outside') return direct()
    if (way === 'changed')
      return direct({ transform: () => ({ sent: new PassThrough(), received: new PassThrough() }) })
    return via(over[way])
  }
  return Object.assign(decide, { upstreams: Object.values(over) })
}
