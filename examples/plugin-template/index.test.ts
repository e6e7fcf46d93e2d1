import assert from 'node:assert/strict'
import { test } from 'node:test'
import { drop, TransparentProxy } from '@tproxy/core'
import { LocalTransport, TestUpstream, verdictOf } from '@tproxy/core/testing'
import office from './index.ts'

const plugin = office({ url: 'socks5://192.0.2.1' })
const address = '203.0.113.1'
const request = (host: string) => `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`

test('mail goes nowhere', async () => {
  const verdict = await verdictOf(plugin, { destination: { address, port: 25 } })
  assert.deepEqual(verdict, drop())
})

test('the domain goes through the proxy, other domains are not decided here', async () => {
  const destination = { address, port: 80 }
  const says = (host: string) => verdictOf(plugin, { destination, says: request(host) })
  assert.equal((await says('example.org'))?.kind, 'via')
  assert.equal(await says('example.com'), undefined)
})

test('a proxy asks it, and what it does not decide goes direct', async () => {
  const origin = new TestUpstream('origin', (socket) => void socket.resume().end('welcome'))
  const transport = new LocalTransport({ direct: origin.connect })
  await using _proxy = await TransparentProxy.open({ transport, plugins: [plugin] })
  const program = await transport.connect({ destination: { address, port: 80 } })
  program.end(request('example.com'))
  const answer = await program.toArray()
  assert.equal(Buffer.concat(answer).toString(), 'welcome')
})

test('a missing option is told', () => {
  assert.throws(() => office.load({}), /option url of office is missing/)
})
