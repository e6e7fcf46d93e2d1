import { formatRule, type Packet } from '@tproxy/core'
import { matchRules } from '@tproxy/core/testing'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { anyPacket, listOf, packetRule } from './local/rules.ts'
import { rawFrames } from './rig/datagram.ts'
import { frame } from './rig/packets.ts'
import { withProxy } from './rig/with-proxy.ts'
import { addresses, tellRules, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

describe.each([
  ['a fragment', '4500003c00012000'],
  ['a whole packet', '4500003c00010000'],
] as const)('%s whose headers say more than there is', (_, start) => {
  withProxy(() => world, { rules: ['drop tcp dport 11', 'direct'] })

  test('is no way around a drop', async () => {
    const { client, origin } = addresses[4]
    const mac = (await world.client.sh("ip -br link show wan0 | awk '{print $3}'")).replaceAll(':', '').trim()
    const hex = (address: string) => Buffer.from(address.split('.').map(Number)).toString('hex')
    const to = (port: number) => {
      const header = `${'ffffffffffff'}${mac}0800${start}40060000${hex(client)}${hex(origin)}`
      const ports = Buffer.from([0x9c, 0x40, port >> 8, port & 255]).toString('hex')
      return Buffer.from(`${header}${ports}${'00'.repeat(8)}50020000${'00'.repeat(24)}`, 'hex')
    }
    // From an IP header without the ports to a TCP header without its last byte.
    const cut = [14, 20, 33, 34, 36, 37, 47, 53].map((length) => to(11).subarray(0, length))
    const frames = [...cut, to(11), to(12)]
    const out = await rawFrames(world.client, 'wan0', frames)
    expect(out).toEqual([...Array(frames.length - 1).fill(false), true])
  })
})

describe('random rules', () => {
  const proxy = withProxy(() => world, { rules: [] })

  test('let out of the interface what they should, and nothing else', { timeout: 60_000 }, async () => {
    let [sent, out] = [0, 0]
    for (const [index, drawn] of fc.sample(listOf(packetRule), 15).entries()) {
      const rules = drawn.map((each, number) => {
        const { via: _, log: __, ...rule } = each
        return { ...rule, action: (number + index) % 2 === 0 ? ('direct' as const) : ('drop' as const) }
      })
      const fallback = index % 3 === 0 ? 'drop' : 'direct'
      // In IPv6, 0 is an extension header. Who sends raw frames is root, by a socket without a mark.
      const packets = fc
        .sample(anyPacket, 60)
        .filter(({ ip, protocol }) => ip === 4 || protocol !== 0)
        .map((each): Packet => {
          const { uid: _, gid: __, process: ___, cgroups: ____, ...packet } = each
          return { ...packet, mark: 0, interface: 'wan0' }
        })
      const { error } = await tellRules(proxy(), { rules: rules.map(formatRule), default: fallback })
      expect(error).toBeUndefined()
      const found = await rawFrames(
        world.client,
        'wan0',
        packets.map((packet) => frame(packet)),
      )
      for (const [at, packet] of packets.entries()) {
        const right = matchRules({ rules, default: fallback }, packet)
        expect({ rules, packet, out: found[at] }).toEqual({ rules, packet, out: right.action === 'direct' })
        sent++
        if (found[at]) out++
      }
    }
    expect(out).toBeGreaterThan(sent / 10)
    expect(sent - out).toBeGreaterThan(sent / 10)
  })
})
