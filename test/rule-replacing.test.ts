import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { shortConnections } from './rig/crowd.ts'
import { datagram } from './rig/datagram.ts'
import { sessions } from './rig/sessions.ts'
import { withProxy } from './rig/with-proxy.ts'
import { addresses, type RuleCommand, tellRules, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

describe('while it runs', () => {
  const { origin } = addresses[4]
  const fillers = (count: number, base: number) =>
    Array.from({ length: count }, (_, i) => `drop tcp to 10.${base}.${i >> 8}.${i & 255} dport ${1000 + i}`)
  const proxy = withProxy(() => world, { rules: [] })

  test('lists are replaced as a whole: no connection fails, whichever list it met', {
    timeout: 120_000,
  }, async () => {
    // Each list lets port 7 through by another rule and drops the rest: parts of both together would drop it.
    const one = [...fillers(300, 1), 'direct tcp dport 7', 'drop tcp']
    const two = [...fillers(900, 2), 'drop tcp not dport 7', 'proxy tcp dport 7']
    await tellRules(proxy(), { rules: one, default: 'drop' })
    let running = true
    const load = (async () => {
      const results = []
      while (running)
        results.push(
          await shortConnections(world.client, { address: origin, port: 7, count: 500, parallel: 20 }),
        )
      return results
    })()
    for (let swap = 0; swap < 40; swap++) {
      const { error } = await tellRules(proxy(), { rules: swap % 2 === 0 ? two : one, default: 'drop' })
      expect(error).toBeUndefined()
      await sleep(20)
    }
    running = false
    const results = await load
    expect(results.length).toBeGreaterThan(2)
    for (const result of results)
      expect(result).toMatchObject({ succeeded: 500, failed: 0, error: '', unanswered: 0, stalled: 0 })
  })

  test('its counts end with it', async () => {
    await using other = await world.proxy({ interfaces: ['wan1'], rules: ['direct dport 7'] })
    await tellRules(other, { counted: true })
    expect(await other.stop()).toMatchObject({ code: 0 })
    await other.until(({ events }) => events.some(({ event }) => event === 'counted'), 'an end of the counts')
    expect(other.events.filter(({ event }) => event === 'uncaught')).toEqual([])
  })

  test('what is established keeps its decision, unless it is asked to end', async () => {
    await tellRules(proxy(), { rules: ['direct dport 7'] })
    const straight = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await tellRules(proxy(), { rules: [] })
    const proxied = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await expect.poll(() => sessions(proxy()).length).toBe(1)

    await tellRules(proxy(), { rules: ['reject tcp dport 7'] })
    expect((await dial(world.client, [origin, 7])).end).toBe('ECONNREFUSED')
    // The client closes when all of its bytes are back.
    expect(await straight.release()).toMatchObject({ end: 'closed', received: 1000, equal: true })
    expect(await proxied.release()).toMatchObject({ end: 'closed', received: 1000, equal: true })
  })

  test('with reset, what the new rules decide differently ends, and the rest stays', async () => {
    const proxied = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await expect.poll(() => sessions(proxy()).length).toBe(1)
    await tellRules(proxy(), { rules: ['direct dport 7', 'direct dport 22'] })
    const straight = await holdDial(world.client, [origin, 7], { echo: 1000 })
    const kept = await holdDial(world.client, [origin, 22], { read: 1 })
    await tellRules(proxy(), { rules: ['reject dport 7', 'direct dport 22'], reset: true })
    expect((await straight.release()).end).toBe('ECONNRESET')
    expect((await proxied.release()).end).toBe('ECONNRESET')
    expect(await kept.release()).toMatchObject({ end: 'closed' })
  })

  test('with reset, the same rules end nothing, whatever they look at', async () => {
    const rules = ['proxy mark 0x99', 'direct']
    await tellRules(proxy(), { rules })
    const held = await holdDial(world.client, [origin, 7], { echo: 1000, mark: 0x99 })
    await expect.poll(() => sessions(proxy()).length).toBe(1)
    await tellRules(proxy(), { rules, reset: true })
    expect(await held.release()).toMatchObject({ end: 'closed', received: 1000, equal: true })
  })

  test('with reset, what is redirected goes on, and ends only where it would go elsewhere', async () => {
    const rules = ['redirect:wan1 dport 7']
    await tellRules(proxy(), { rules })
    const same = await holdDial(world.client, [origin, 7], { echo: 1000 })
    const other = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await tellRules(proxy(), { rules, reset: true })
    expect(await same.release()).toMatchObject({ end: 'closed', received: 1000, equal: true })
    await tellRules(proxy(), { rules: ['direct dport 7'], reset: true })
    expect((await other.release()).end).toBe('ECONNRESET')
  })

  test('a rule has only what its own list decided', async () => {
    const flood = `
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('${origin}', 9)); print('ready', flush=True)
while True:
  for i in range(20): s.send(b'x')
  time.sleep(.001)`
    const list = (port: number) => [`drop udp dport ${port}`, ...fillers(2000, 1), 'drop udp']
    const packets = async (rule: number, command: RuleCommand = {}) =>
      (await tellRules(proxy(), command)).counts?.at(rule)?.[0]
    const first = (command?: RuleCommand) => packets(1, command)
    const [one, two] = [{ rules: list(9) }, { rules: list(1) }]
    await first(one)
    await using sender = world.client.spawn('/usr/bin/python3', ['-c', flood])
    await sender.until(({ stdout }) => stdout.includes('ready'), 'the sender')
    for (let swap = 0; swap < 5; swap++) {
      await sleep(100)
      expect(await first(two)).toBe(0)
      await sleep(100)
      expect(await first()).toBe(0)
      expect(await packets(-1)).toBeGreaterThan(20)
      await first(one)
    }
    await sleep(100)
    expect(await first()).toBeGreaterThan(100)
    expect(await packets(-1)).toBe(0)
  })

  test('each rule of a long list counts by itself, in one list as in the next', async () => {
    const rules = Array.from({ length: 1200 }, (_, at) => `reject udp dport ${2001 + at}`)
    const met = [1, 63, 64, 65, 127, 128, 1023, 1024, 1200]
    for (let list = 0; list < 2; list++) {
      await tellRules(proxy(), { rules, default: 'direct' })
      for (const rule of met) expect(await datagram(world.client, [origin, 2000 + rule])).toBe('ECONNREFUSED')
      const { counts = [] } = await tellRules(proxy(), {})
      const counted = counts.flatMap(([packets], rule) => (packets > 0 && rule > 0 ? [[rule, packets]] : []))
      expect(counted).toEqual(met.map((rule) => [rule, 1]))
    }
  })

  test('a list for which there is no memory leaves the old one in force', async () => {
    await tellRules(proxy(), { rules: ['reject udp dport 9'] })
    const open = new Set(readdirSync(`/proc/${proxy().pid}/fd`).map(Number))
    const free = Array.from({ length: open.size + 1 }, (_, fd) => fd).find((fd) => !open.has(fd))
    const limits = await world.client.sh(
      `prlimit --pid ${proxy().pid} --nofile --noheadings --output SOFT,HARD`,
    )
    const [soft, hard] = limits.trim().split(/\s+/)
    const limit = (files: string) => world.client.sh(`prlimit --pid ${proxy().pid} --nofile=${files}:${hard}`)
    await limit(`${free}`)
    const { error } = await tellRules(proxy(), { rules: ['drop tcp dport 1', 'drop udp dport 9'] })
    await limit(`${soft}`)
    expect(error).toContain('create a map for the rules: EMFILE')
    expect(await datagram(world.client, [origin, 9])).toBe('ECONNREFUSED')
    const { counts } = await tellRules(proxy(), {})
    expect(counts?.map(([packets]) => packets)).toEqual([0, 1])
  })

  test('a list that is not valid leaves the old one in force', async () => {
    await tellRules(proxy(), { rules: ['reject tcp dport 7'] })
    const answer = await tellRules(proxy(), { rules: ['drop tcp', 'drop dport 70000'] })
    expect(answer.error).toMatch(/expected a port.*, got "70000"/)
    expect((await dial(world.client, [origin, 7])).end).toBe('ECONNREFUSED')
    const unknown = await tellRules(proxy(), { rules: ['proxy via nobody'] })
    expect(unknown.error).toContain('rule 1: there is no plugin nobody')
  })
})
