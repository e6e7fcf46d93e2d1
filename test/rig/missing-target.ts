// A joined connection over loopback whose accepted socket leaves the map but stays open: prints what then happens to what the
// program's end sends, redirected before and not any more, as JSON.
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { Fastpath } from '@tproxy/bpf'

const bpftool = (...words: string[]) =>
  execFileSync('/usr/sbin/bpftool', ['-j', 'map', ...words], { encoding: 'utf8' })
const descriptor = (socket: Socket) => (socket as unknown as { _handle: { fd: number } })._handle.fd

/** Empties the map of accepted sockets. */
function empty(): void {
  const list = `grep -sh ^map_id /proc/${process.pid}/fdinfo/* | cut -f2`
  const ids = execFileSync('bash', ['-c', list], { encoding: 'utf8' }).trim().split('\n')
  for (const id of ids.filter((it) => JSON.parse(bpftool('show', 'id', it)).name === 'accepted'))
    for (const { key } of JSON.parse(bpftool('dump', 'id', id)) as { key: string[] }[])
      bpftool('delete', 'id', id, 'key', ...key)
}

using fastpath = Fastpath.load()
fastpath.redirect(false)
const server = createServer().listen(0, '127.0.0.1')
await once(server, 'listening')
const program = connect((server.address() as AddressInfo).port, '127.0.0.1')
const [ours] = (await once(server, 'connection')) as [Socket]
const address = new Uint8Array(16)
const key = { source: address, destination: address, sourcePort: 1, destinationPort: 2 }
fastpath.record(key, descriptor(program))
fastpath.join(key, descriptor(ours))
const send = (text: string) =>
  new Promise<string>((resolve) => program.write(text, (error) => resolve(error?.message ?? 'sent')))
const received = () => once(ours, 'data').then(([chunk]) => String(chunk))

const first = await Promise.all([send('redirected'), received()])
empty()
const second = await Promise.all([send('passed'), received()])
const { redirected, notJoined } = fastpath.counters()
console.log(JSON.stringify({ first, second, redirected: Number(redirected), notJoined: Number(notJoined) }))
process.exit()
