import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial } from './rig/client.ts'
import type { Host, Program } from './rig/host.ts'
import { events } from './rig/lines.ts'
import { microsocks } from './rig/servers.ts'
import { digest, generate } from './rig/stream.ts'
import { start } from './rig/tproxy-run.ts'
import { addresses, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

const MB = 1_000_000

/** tproxy-run on wan0, with a SOCKS server at port 1080 of this address. */
async function throughSocks(address: string): Promise<Program> {
  const url = `socks5://${address.includes(':') ? `[${address}]` : address}:1080`
  return start(world, ['-i', 'wan0', '-p', `socks=${url}`])
}

/** Puts so many bytes by HTTP to the origin, which says what it got; and gets as many. */
async function upAndDown(url: string, size: number): Promise<{ up: string; down: string }> {
  const script = `${generate(size)} | curl -sS -m 30 -T - ${url}/up; curl -sS -m 30 ${url}/bytes/${size} | sha256sum`
  const [up = '', down = ''] = (await world.client.sh(script)).split('\n')
  return { up, down: down.split(' ')[0] ?? '' }
}

/** What {@link upAndDown} has to say. */
function expected(size: number): { up: string; down: string } {
  return { up: digest(size), down: createHash('sha256').update(Buffer.alloc(size, 'x')).digest('hex') }
}

test('an upstream whose path translates our addresses is relayed to', async () => {
  await using _server = await microsocks(world.internet, '198.51.100.1', 1080)
  await world.client.sh(`nft -f - <<'END'
    table inet translated {
      chain out { type nat hook postrouting priority 100; tcp dport 1080 masquerade random; }
    }
END`)
  try {
    await using program = await throughSocks('198.51.100.1')
    expect(await upAndDown(`http://${addresses[4].url}`, 5 * MB)).toEqual(expected(5 * MB))
    const sessions = () => events(program, 'session-end')
    await program.until(() => sessions().length === 2, 'both ends')
    expect(sessions().map(({ carried }) => carried)).toEqual(['relay', 'relay'])
    expect(await program.stop()).toMatchObject({ code: 0 })
  } finally {
    await world.client.sh('nft delete table inet translated')
  }
})

describe.each<[string, string, (world: World) => Host, string]>([
  ['elsewhere', '198.51.100.1', ({ internet }) => internet, addresses[4].origin],
  ['elsewhere', '2001:db8:1::1', ({ internet }) => internet, addresses[6].origin],
  ['on this host', '127.0.0.1', ({ client }) => client, addresses[4].origin],
  ['on this host', '::1', ({ client }) => client, addresses[6].origin],
  ['on this host', '198.51.100.2', ({ client }) => client, addresses[4].origin],
])('through a SOCKS server %s, at %s', (_, address, host, origin) => {
  test('the kernel carries what the handshake began', async () => {
    await using _server = await microsocks(host(world), address, 1080)
    await using program = await throughSocks(address)
    const size = 50 * MB
    expect(await upAndDown(`http://${origin.includes(':') ? `[${origin}]` : origin}`, size)).toEqual(
      expected(size),
    )
    // The server speaks first: its words may come with the reply to the handshake.
    const first = await dial(world.client, [origin, 22], { send: 'hello', read: 18, timeout: 5000 })
    expect(first).toMatchObject({ end: 'closed', received: 18, first: 'SSH-2.0-righello' })
    const sessions = () => events(program, 'session-end')
    await program.until(() => sessions().length === 3, 'all ends')
    expect(sessions().map(({ carried }) => carried)).toEqual(['splice', 'splice', 'splice'])
    expect(sessions()[2]).toMatchObject({ bytes: { sent: 5, received: 18 } })
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' })
  })
})
