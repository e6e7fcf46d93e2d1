// Changes nothing and shows, every second, which program sends and receives how much: a live table, most active first.
//
//   sudo examples/run bandwidth.ts eth0
//
// The kernel carries the bytes; that they are counted costs nothing.
import { type Session, TransparentProxy } from '@tproxy/core'
import { interval } from 'rxjs'

const [device = 'eth0', seconds = '1'] = process.argv.slice(2)

/** What a program has open, and what it exchanged over what it has closed. */
class Account {
  readonly open = new Set<Session>()
  sent = 0
  received = 0
  shown = { sent: 0, received: 0 }

  add(session: Session): void {
    this.open.add(session)
    void session.ended.then(({ bytes }) => {
      this.open.delete(session)
      this.sent += bytes.sent
      this.received += bytes.received
    })
  }

  /** Totals, and what came since the last call, in kB and kB/s. */
  row(program: string): Record<string, string | number> {
    const total = { sent: this.sent, received: this.received }
    for (const { bytes } of this.open) {
      total.sent += bytes.sent
      total.received += bytes.received
    }
    const rate = (key: 'sent' | 'received') =>
      Math.round((total[key] - this.shown[key]) / Number(seconds) / 1000)
    const row = { program, open: this.open.size, '↑ kB/s': rate('sent'), '↓ kB/s': rate('received') }
    this.shown = total
    return { ...row, '↑ kB': Math.round(total.sent / 1000), '↓ kB': Math.round(total.received / 1000) }
  }
}

const accounts = new Map<string, Account>()
await using proxy = await TransparentProxy.open({ interfaces: [device] })

proxy.sessions.subscribe((session) => {
  const program = session.connection.process?.name ?? 'unknown'
  const account = accounts.get(program) ?? new Account()
  accounts.set(program, account)
  account.add(session)
})

const busiest = (row: Record<string, string | number>) => Number(row['↑ kB/s']) + Number(row['↓ kB/s'])
const tables = interval(Number(seconds) * 1000).subscribe(() => {
  const rows = [...accounts].map(([program, account]) => account.row(program))
  if (process.stdout.isTTY) process.stdout.write('\x1b[H\x1b[J')
  console.table(rows.toSorted((a, b) => busiest(b) - busiest(a)))
})

console.log('ready')
await new Promise((resolve) => process.once('SIGTERM', resolve).once('SIGINT', resolve))
tables.unsubscribe()
