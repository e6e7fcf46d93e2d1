// The proxy that is measured: its plugin changes every byte on the way there and back.
import { readlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { Duplex, Transform } from 'node:stream'
import { TransparentProxy, via } from '../../packages/core/src/index.ts'

// Started by hand, it would intercept the machine itself.
const machine = process.env['RIG_MACHINE']
if (machine === undefined || readlinkSync('/proc/self/ns/net') === machine)
  throw new Error('bench/fastpath/proxy.ts runs in a host of the rig only')

const inverter = () =>
  new Transform({
    transform(chunk: Buffer, _encoding, done) {
      for (let at = 0; at < chunk.length; at++) chunk[at] = ~(chunk[at] ?? 0)
      done(null, chunk)
    },
  })

const upstream = {
  name: 'inverting',
  async connect({ address, port }: { address: string; port: number }) {
    const socket = connect({ host: address, port, noDelay: true, allowHalfOpen: true })
    const [there, back] = [inverter(), inverter()]
    there.pipe(socket).pipe(back)
    return Duplex.from({ writable: there, readable: back })
  },
}

const { cgroup, fastpath } = JSON.parse(process.argv[2] ?? '{}')
const proxy = await TransparentProxy.open({
  interfaces: ['wan0'],
  cgroup,
  fastpath,
  plugins: [() => via(upstream)],
})
console.log(JSON.stringify({ event: 'ready', fastpath: proxy.fastpath }))
process.once('SIGTERM', () => {
  const counts = Object.entries(proxy.fastpath.counts?.() ?? {}).map(([name, count]) => `${name} ${count}`)
  console.log(JSON.stringify({ event: 'counts', counts: counts.join(', ') }))
  void proxy.close()
})
