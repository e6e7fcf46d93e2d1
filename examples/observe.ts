// Changes nothing and shows who talks to whom: every connection goes where it wanted to, and every ten seconds a table
// tells how many bytes each program exchanged with each destination.
//
//   examples/run observe.ts eth0 10
import { formatEndpoint, TransparentProxy } from '@tproxy/core'
import { interval } from 'rxjs'

const [device = 'eth0', seconds = '10'] = process.argv.slice(2)
const totals = new Map<string, { program: string; destination: string; sent: number; received: number }>()

await using proxy = await TransparentProxy.open({ interfaces: [device] })

proxy.sessions.subscribe(async (session) => {
  const { connection, bytes } = await session.ended
  const program = connection.process?.name ?? 'unknown'
  const destination = formatEndpoint(connection.destination)
  const key = `${program} ${destination}`
  const total = totals.get(key) ?? { program, destination, sent: 0, received: 0 }
  total.sent += bytes.sent
  total.received += bytes.received
  totals.set(key, total)
})

const tables = interval(Number(seconds) * 1000).subscribe(() => console.table([...totals.values()]))

console.log('ready')
await new Promise((resolve) => process.once('SIGTERM', resolve).once('SIGINT', resolve))
tables.unsubscribe()
