import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { duplicate, NativeError } from '@tproxy/bpf'
import { expect, test, vi } from 'vitest'
import { socketPair } from '../testing/socket-pair.ts'
import { Acceptor, type AcceptorOptions } from './acceptor.ts'

/** The descriptor of a socket that listens, and its port. On all addresses: what comes to its own one is refused. */
async function listening(): Promise<{ fd: number; port: number }> {
  const server = createServer().listen(0, '0.0.0.0')
  await once(server, 'listening')
  const fd = duplicate((server as unknown as { _handle: { fd: number } })._handle.fd)
  const { port } = server.address() as { port: number }
  server.close()
  return { fd, port }
}

test('a connection that cannot be described is reset, and counts no more', async () => {
  const { fd, port } = await listening()
  const budget = { limit: 10, open: 0 }
  const warn = vi.fn()
  const takeFlow = () => {
    expect(budget.open).toBe(1)
    throw new NativeError('look up a flow', 12)
  }
  const device = { interface: { name: 'wan0', mtu: 1500 } }
  const options = { fd, budget, takeFlow, warn, device, accepted: () => {} }
  using _acceptor = new Acceptor(options as unknown as AcceptorOptions)
  const program = connect(port, '127.0.0.1')
  const [error] = (await once(program, 'error')) as [NodeJS.ErrnoException]
  expect(error.code).toBe('ECONNRESET')
  expect(budget.open).toBe(0)
  expect(warn).toHaveBeenCalledWith('accept on wan0: look up a flow: ENOMEM')
})

test('who waits for one that cannot be accepted is told: what it holds may be the descriptor that is missing', async () => {
  const [program, other] = await socketPair()
  // Nothing can be accepted by a socket that is connected.
  const fd = duplicate((program as unknown as { _handle: { fd: number } })._handle.fd)
  const device = { interface: { name: 'wan0', mtu: 1500 } }
  const options = { fd, budget: { limit: 10, open: 0 }, warn: () => {}, device, accepted: () => {} }
  using acceptor = new Acceptor(options as unknown as AcceptorOptions)
  const address = new Uint8Array(16)
  const came = vi.fn()
  acceptor.expect({ source: address, destination: address, sourcePort: 1, destinationPort: 2 }, came)
  expect(came.mock.calls).toEqual([[undefined]])
  program.destroy()
  other.destroy()
})
