// Takes this host's new connections on an interface as a stream, and carries each through a SOCKS proxy, or directly.
//
//   examples/run embed.ts eth0 socks5://192.0.2.1:1080
//
// HTTPS goes through the proxy, everything else where it wanted to. Connections to port 8080 are answered by a server in
// this very process: the socket is ours to do with as we like.
import { createServer } from 'node:http'
import { direct, formatEndpoint, intercept, reason, via } from '@tproxy/core'
import { socksUpstream } from '@tproxy/plugin-socks'
import { mergeMap } from 'rxjs'

const [device = 'eth0', url = 'socks5://127.0.0.1:1080'] = process.argv.slice(2)
const upstream = socksUpstream(url)
const here = createServer((request, response) =>
  response.end(`${request.headers.host} is answered from here\n`),
)

await using interception = await intercept({ interfaces: [device] })

interception.connections
  .pipe(
    mergeMap(async (connection) => {
      if (connection.destination.port === 8080)
        return void here.emit('connection', connection.take().resume())
      return connection.settle(connection.destination.port === 443 ? via(upstream) : direct())
    }),
  )
  .subscribe((session) => {
    if (session === undefined) return
    const { connection, verdict, end } = session
    const how = end === undefined ? verdict.kind : `${end.how}: ${reason(end.error)}`
    console.log(`${connection.process?.name ?? '?'} → ${formatEndpoint(connection.destination)} ${how}`)
  })

console.log('ready')
await new Promise((resolve) => process.once('SIGTERM', resolve).once('SIGINT', resolve))
