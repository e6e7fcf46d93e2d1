import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { firstValueFrom } from 'rxjs'
import { expect, test } from 'vitest'
import { Interception } from './interception.ts'
import { ending } from './testing/ending.ts'
import { LocalTransport } from './testing.ts'
import { direct } from './verdict.ts'

const destination = { address: '203.0.113.1', port: 443 }

test('a connection nobody settles is reset at its deadline', async () => {
  const transport = new LocalTransport()
  await using interception = new Interception(transport, { decisionMs: 50 })
  const warning = firstValueFrom(interception.warnings)
  const client = await transport.connect({ destination })
  expect(await ending(client)).toBe('ECONNRESET')
  expect(await warning).toBe('nobody decided 203.0.113.1:443 within 50 ms: refused')
})

test('each connection has a deadline of its own, whatever becomes of earlier ones', async () => {
  const transport = new LocalTransport()
  await using interception = new Interception(transport, { decisionMs: 1000 })
  const open = async () => {
    const pending = firstValueFrom(interception.connections)
    const client = await transport.connect({ destination })
    return { connection: await pending, ended: ending(client) }
  }
  const taken = await open()
  taken.connection.take()
  await sleep(500)
  const [second, third] = [await open(), await open()]
  await Promise.all([second.ended, third.ended])
  for (const { connection } of [second, third]) {
    const waited = performance.now() - connection.acceptedMs
    expect(waited).toBeGreaterThanOrEqual(1000)
    // Not when the first one's would have come a second time.
    expect(waited).toBeLessThan(1450)
  }
  expect(await Promise.race([taken.ended, sleep(50, 'open')])).toBe('open')
})

test('a taken socket belongs to the caller, and settling it again is an error', async () => {
  const transport = new LocalTransport()
  await using interception = new Interception(transport, { decisionMs: 50 })
  const pending = firstValueFrom(interception.connections)
  const client = await transport.connect({ destination })
  const connection = await pending
  const socket = connection.take()
  await expect(connection.settle(direct())).rejects.toMatchObject({ code: 'E_STATE' })
  await new Promise((resolve) => setTimeout(resolve, 100))
  socket.end('mine')
  expect(await text(client)).toBe('mine')
})
