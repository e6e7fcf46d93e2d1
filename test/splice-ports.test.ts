import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { expectEnd } from './rig/ending.ts'
import { firewall } from './rig/firewall.ts'
import { endFrom, ends, sessions } from './rig/sessions.ts'
import { addresses, tellRules, World } from './rig/world.ts'

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

/** Less than the second after which a SYN is repeated, and more than a busy machine takes for a handshake. */
const soon = 700

const proxied = () => world.proxy({ interfaces: ['wan0'] })

/**
 * Connects several times by one port, and each time but the last lets its socket vanish without a word (TCP_REPAIR). Prints the
 * milliseconds until each was connected.
 */
const vanishing = `
import socket, sys, time
source, origin = sys.argv[1:3]
for last in (False, False, True):
  s = socket.socket(socket.AF_INET6 if ':' in origin else socket.AF_INET)
  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  s.bind((source, 20001))
  began = time.monotonic()
  s.connect((origin, 7))
  print(round((time.monotonic() - began) * 1000))
  s.sendall(b'hello')
  if s.recv(5) != b'hello': sys.exit('not the echo')
  if last: s.shutdown(socket.SHUT_WR)
  else: s.setsockopt(socket.IPPROTO_TCP, 19, 1)
  s.close()
`

/** Has something echoed, lets its socket vanish, and has something echoed by a new one with its port when it is told to. */
const returning = `
import socket, sys
source, origin = sys.argv[1:3]
for vanishes in (True, False):
  s = socket.socket(socket.AF_INET6 if ':' in origin else socket.AF_INET)
  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  s.bind((source, 20002))
  s.connect((origin, 7))
  s.sendall(b'hello')
  if s.recv(5) != b'hello': sys.exit('not the echo')
  if not vanishes: break
  print('heard', flush=True)
  sys.stdin.readline()
  s.setsockopt(socket.IPPROTO_TCP, 19, 1)
  s.close()
`

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const { client, origin } = addresses[family]

  test('a program comes back by the port of a connection that it has left, while our socket of that is there', async () => {
    await using proxy = await proxied()
    const { stdout, stderr } = await world.client.run('python3', ['-c', vanishing, client, origin])
    expect(stderr).toBe('')
    const times = stdout.trim().split('\n').map(Number)
    expect(times).toHaveLength(3)
    expect(Math.max(...times)).toBeLessThan(soon)
    await proxy.until((program) => ends(program).length === 3, 'three ends')
    const gone = { how: 'reset', by: 'client' }
    expect(ends(proxy)).toMatchObject([gone, gone, { how: 'closed' }])
    await expectEnd(proxy)
  })

  test('what a program left has ended when it comes back by the port, also past the proxy', async () => {
    await using proxy = await proxied()
    await using program = world.client.spawn('python3', ['-c', returning, client, origin])
    await program.until(({ stdout }) => stdout.includes('heard'), 'an echo')
    await expect.poll(() => sessions(proxy).length).toBe(1)
    await sleep(200)
    await tellRules(proxy, { rules: ['direct tcp'] })
    program.child.stdin?.write('again\n')
    expect(await program.exited).toMatchObject({ code: 0, stderr: '' })
    await proxy.until((it) => ends(it).length > 0, 'the end')
    expect(ends(proxy)).toMatchObject([{ how: 'reset', by: 'client', carried: 'splice' }])
    await expectEnd(proxy)
  })

  test('a program is served by the port of a connection of ours that was ended', async () => {
    await using proxy = await proxied()
    const held = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await expect.poll(() => sessions(proxy).length).toBe(1)
    await sleep(200)
    const own = `${sessions(proxy)[0]?.source.port}`
    const connected = await world.client.sh(`ss -Htn state established dport = :7 and sport != :${own}`)
    const port = Number(/:(\d+)\s+\S+\s*$/.exec(connected)?.[1])
    await tellRules(proxy, { rules: ['direct tcp'], reset: true })
    await tellRules(proxy, { rules: [] })
    const next = await dial(world.client, [origin, 7], { bind: port, echo: 1000 })
    expect(next).toMatchObject({ end: 'closed', port, equal: true })
    expect(next.connectMs).toBeLessThan(soon)
    expect((await held.release()).end).toBe('ECONNRESET')
    expect(await endFrom(proxy, port)).toMatchObject({ how: 'closed' })
    await expectEnd(proxy)
  })

  test('our sockets stay until what was on its way to them has come, or has come by the new way', async () => {
    // It says hello before that is decided.
    await using proxy = await world.proxy({ interfaces: ['wan0'], plugin: 'hesitating' })
    const data = 'tcp dport 7 tcp flags & (syn | psh) == psh drop'
    const accepted = async () => (await world.client.sh('ss -Htn state established sport = :7')).trim()
    let program: ReturnType<typeof dial>
    {
      // It is lost on its way to the accepted socket, and again when it comes by the network.
      await using _here = await firewall(world.client, 'input', `iif lo ${data}`)
      await using _there = await firewall(world.internet, 'input', data)
      program = dial(world.client, [origin, 7], { send: 'hello', read: 5 })
      await expect.poll(() => sessions(proxy).length).toBe(1)
      await sleep(500)
      expect(await accepted()).not.toBe('')
    }
    const { first, port } = await program
    expect(first).toBe('hello')
    const end = { carried: 'splice', bytes: { sent: 5, received: 5 } }
    expect(await endFrom(proxy, port)).toMatchObject(end)
    await expectEnd(proxy)
  })
})
