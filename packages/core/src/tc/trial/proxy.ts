// The second process of a trial: a proxy, and an echo server on its loopback as the upstream. See program.ts.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { TransparentProxy } from '../../proxy.ts'
import { via } from '../../verdict.ts'
import { openTransport } from '../open.ts'

const server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)).listen(0, '::')
await once(server, 'listening')
const { port } = server.address() as AddressInfo

const echo = {
  name: 'echo',
  connect: async ({ address }: { address: string }) => {
    const host = address.includes(':') ? '::1' : '127.0.0.1'
    const socket = connect({ port, host, allowHalfOpen: true })
    await once(socket, 'connect')
    return socket
  },
}

const transport = await openTransport({ interfaces: 'all' }, undefined, async () => undefined)
const proxy = await TransparentProxy.open({ transport, plugins: [() => via(echo)] })
proxy.sessions.subscribe(({ ended }) => {
  void ended.then(({ carried, notSpliced, bytes, end }) => {
    process.send?.({ carried, notSpliced, bytes, how: end?.how })
  })
})
process.send?.('ready')
await once(process, 'disconnect')
await proxy.close()
process.exit()
