// A plugin: several proxies, of which the one that last worked is used, and the next ones when it fails.
//
//   ./tproxy-run --plugin ./examples/retry.ts=socks5://192.0.2.1:1080,socks5://192.0.2.2:1080 -- git pull
//
// Each is given three seconds, and all of them are tried twice. The program sees one connection that took a little longer.
import type { Duplex } from 'node:stream'
import { type Destination, definePlugin, type Upstream, via } from '@tproxy/core'
import { socksUpstream } from '@tproxy/plugin-socks'
import { defer, firstValueFrom, Observable, retry, timeout } from 'rxjs'
import { z } from 'zod'

/** A connection to an upstream, given up when nobody waits for it any more. */
function dial(upstream: Upstream, destination: Destination, signal: AbortSignal): Observable<Duplex> {
  return new Observable((subscriber) => {
    const abort = new AbortController()
    upstream.connect(destination, AbortSignal.any([signal, abort.signal])).then(
      (stream) => subscriber.next(stream),
      (error) => subscriber.error(error),
    )
    return () => abort.abort()
  })
}

function anyOf(upstreams: readonly Upstream[]): Upstream {
  let current = 0
  return {
    name: upstreams.map(({ name }) => name).join(' or '),
    connect(destination, signal) {
      const attempt = defer(() =>
        dial(upstreams[current % upstreams.length] as Upstream, destination, signal),
      )
      const patient = attempt.pipe(
        timeout(3000),
        retry({
          count: 2 * upstreams.length - 1,
          delay: (error) => {
            if (signal.aborted) throw error
            current++
            return Promise.resolve()
          },
        }),
      )
      return firstValueFrom(patient)
    },
  }
}

export default definePlugin({
  name: 'retry',
  options: z.object({ urls: z.string().describe('URLs of SOCKS proxies, separated by commas') }),
  argument: 'urls',
  create({ urls }) {
    const upstreams = urls.split(',').map((url) => socksUpstream(url))
    const any = anyOf(upstreams)
    return { upstreams, decide: () => via(any) }
  },
})
