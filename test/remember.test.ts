import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial } from './rig/client.ts'
import type { Program } from './rig/host.ts'
import { endFrom, sessions, warnings } from './rig/sessions.ts'
import { addresses, tellRules, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

const proxied = (plugin: string, rules: string[] = []) => world.proxy({ interfaces: ['wan0'], plugin, rules })

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { origin } = addresses[family]

  /** Whether the proxy had this connection; its bytes arrive in any case. */
  async function asked(proxy: Program, port = 7): Promise<boolean> {
    const before = sessions(proxy).length
    const earlier = world.reached.length
    const wanted = port === 7 ? { echo: 1000 } : { read: 13 }
    const dialled = await dial(world.client, [origin, port], { ...wanted, timeout: 5000 })
    expect(dialled).toMatchObject({ end: 'closed', received: port === 7 ? 1000 : 13 })
    // The origin sees the program's own port where it was left alone; it tells so in its own time.
    await world.origin.until(
      () => world.reached.slice(earlier).some(({ port: to }) => to === port),
      `a connection to port ${port}`,
    )
    const taken = sessions(proxy).some(({ source }) => source.port === dialled.port)
    if (taken) await endFrom(proxy, dialled.port)
    expect(sessions(proxy).length).toBe(taken ? before + 1 : before)
    return taken
  }

  test('a remembered verdict holds for later connections to the same port, and no plugin is asked', async () => {
    await using proxy = await proxied('remembering')
    expect(await asked(proxy)).toBe(true)
    const what = { verdict: 'direct', address: origin, port: 7, uid: 0, rule: 0 }
    expect(sessions(proxy)).toMatchObject([{ remembered: { ...what, hits: 0 } }])
    for (let again = 0; again < 3; again++) expect(await asked(proxy)).toBe(false)
    expect(await asked(proxy, 22)).toBe(true)
    const { recalled, remembered } = await tellRules(proxy, {})
    expect(recalled).toBe(3)
    expect(remembered).toContainEqual({ ...what, hits: 3, until: expect.any(String) })
    const { until } = remembered?.find(({ port }) => port === 7) ?? {}
    expect(Date.parse(until ?? '') - Date.now()).toSatisfy((left: number) => left > 50_000 && left < 60_000)

    // To the millisecond, and on its own.
    expect(await asked(proxy, 22)).toBe(false)
    await sleep(500)
    expect(await asked(proxy, 22)).toBe(true)

    // Of that, nothing is left to see either.
    await sleep(500)
    expect(await tellRules(proxy, {})).toMatchObject({ remembered: [{ port: 7 }] })

    await tellRules(proxy, { forget: 22 })
    expect(await asked(proxy)).toBe(false)
    await tellRules(proxy, { forget: 7 })
    expect(await asked(proxy)).toBe(true)
    expect(await asked(proxy)).toBe(false)
    expect(await tellRules(proxy, { forget: 'all' })).toMatchObject({ remembered: [] })
    expect(await asked(proxy)).toBe(true)
  })

  test('what one rule sends to a plugin says nothing of what another does', async () => {
    await using proxy = await proxied('remembering', ['proxy tcp process client'])
    const other = async () => {
      const before = sessions(proxy).length
      await world.client.sh(`exec 3<>/dev/tcp/${origin}/7; echo hi >&3; head -c 3 <&3`)
      return sessions(proxy).length > before
    }
    expect([await asked(proxy), await other()]).toEqual([true, true])
    expect([await asked(proxy), await other()]).toEqual([false, false])
  })

  test('other rules are a new beginning', async () => {
    await using proxy = await proxied('remembering', ['proxy tcp dport 7'])
    expect(await asked(proxy)).toBe(true)
    expect(await asked(proxy)).toBe(false)
    await tellRules(proxy, { rules: ['proxy tcp dport 7'] })
    expect(await asked(proxy)).toBe(true)
    expect(await asked(proxy)).toBe(false)
    await tellRules(proxy, { rules: ['direct dport 22', 'proxy tcp dport 7'] })
    expect(await asked(proxy)).toBe(true)
    expect(await asked(proxy, 22)).toBe(false)
    // What is remembered never comes before a rule.
    await tellRules(proxy, { rules: ['reject dport 7'] })
    expect(await dial(world.client, [origin, 7], { echo: 10 })).toMatchObject({ end: 'ECONNREFUSED' })
  })

  test('a connection that was left alone is reset when the next rules have it proxied and are to apply to it', async () => {
    await using proxy = await proxied('remembering')
    expect(await asked(proxy)).toBe(true)
    const held = dial(world.client, [origin, 1003], { send: '3', shutdown: true, timeout: 10_000 })
    await proxy.until((it) => sessions(it).length === 2, 'a session')
    const untouched = dial(world.client, [origin, 1003], { send: '3', shutdown: true, timeout: 10_000 })
    await sleep(300)
    expect(sessions(proxy)).toHaveLength(2)
    expect(await tellRules(proxy, { rules: ['proxy tcp'], reset: true })).not.toHaveProperty('error')
    expect((await untouched).end).toBe('ECONNRESET')
    expect((await held).end).toBe('fin')
  })

  test('by address, it holds for all ports; of another user, for none', async () => {
    await using proxy = await proxied('byAddress')
    expect(await asked(proxy)).toBe(true)
    expect(await asked(proxy, 22)).toBe(false)
    const script = `exec 3<>/dev/tcp/${origin}/22; head -c 13 <&3`
    const other = ['--reuid=65534', '--clear-groups', 'bash', '-c', script]
    expect(await world.client.run('setpriv', other)).toMatchObject({ stdout: 'SSH-2.0-rig\r\n' })
    expect(sessions(proxy)).toHaveLength(2)
  })

  test('port 0 is a port', async () => {
    await using proxy = await proxied('remembering')
    expect(await dial(world.client, [origin, 0], { echo: 10 })).toMatchObject({ end: 'ECONNREFUSED' })
    expect(sessions(proxy)).toMatchObject([{ destination: { port: 0 } }])
    expect(await asked(proxy)).toBe(true)
  })

  test('a remembered refusal is one of the kernel', async () => {
    await using proxy = await proxied('remembering')
    const dials = async () => (await dial(world.client, [origin, 25], { echo: 10 })).end
    expect([await dials(), await dials()]).toEqual(['ECONNREFUSED', 'ECONNREFUSED'])
    expect(sessions(proxy)).toHaveLength(1)
  })

  test('what is transformed is not remembered, or later connections would not be', async () => {
    await using proxy = await proxied('rememberingTransformed')
    expect([await asked(proxy), await asked(proxy)]).toEqual([true, true])
    expect(warnings(proxy)[0]).toMatch(/^remember the verdict for .*:7: remember with transform/)
  })

  test('what was peeked at is not remembered, unless whatever its name', async () => {
    await using proxy = await proxied('rememberingPeeked')
    expect([await asked(proxy), await asked(proxy)]).toEqual([true, true])
    for (const session of sessions(proxy)) expect(session).not.toHaveProperty('remembered')
    expect(warnings(proxy)[0]).toMatch(/^remember the verdict for .*:7: it was peeked at/)
    const { url } = addresses[family]
    for (const before of [2, 3]) {
      expect(sessions(proxy)).toHaveLength(before)
      await world.client.sh(`curl -sS -m 3 http://${url}/`)
    }
    expect(sessions(proxy)).toHaveLength(3)
    expect(warnings(proxy)).toHaveLength(2)
  })
})
