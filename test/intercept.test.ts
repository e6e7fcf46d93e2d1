import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { withinHierarchy } from './rig/cgroup.ts'
import { dial } from './rig/client.ts'
import { Proxy } from './rig/proxy.ts'
import { createWorld, families, type World } from './rig/world.ts'

let world: World
let proxy: Proxy

beforeAll(async () => {
  world = await createWorld({ wan1: true })
  proxy = await Proxy.start(world.client, { interfaces: ['wan0', 'wan1'] })
})
afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]()
  await world?.[Symbol.asyncDispose]()
})

describe.each(families)('programs over $name', ({ origin: address, host, client: own, loopback }) => {
  test('curl gets a page over HTTP, by way of the proxy', async () => {
    const before = proxy.sessions('curl').length
    const { stdout, stderr } = await world.client.run('curl', ['-sS', '-m', '5', `http://${host}/`])
    expect(stdout + stderr).toBe('hello from the origin')
    const [session, ...more] = proxy.sessions('curl').slice(before)
    expect(more).toEqual([])
    expect(session).toMatchObject({ destination: `${host}:80`, verdict: 'direct', interface: 'wan0' })
  })

  test('curl verifies the origin over HTTPS: nobody is in between', async () => {
    const before = proxy.sessions('curl').length
    const args = ['-sS', '-m', '5', '--cacert', world.origin.certificate, `https://${host}/`]
    const { stdout, stderr } = await world.client.run('curl', args)
    expect(stdout + stderr).toBe('hello from the origin')
    expect(proxy.sessions('curl').slice(before)).toMatchObject([{ destination: `${host}:443` }])
  })

  test.each(['wan0', 'wan1'] as const)('curl --interface %s leaves by it, by way of the proxy', async (name) => {
    const before = proxy.sessions('curl').length
    const { stdout, stderr } = await world.client.run('curl', [
      '-sS',
      ...['-m', '5', '--interface', name, `http://${host}/`],
    ])
    expect(stdout + stderr).toBe('hello from the origin')
    const [session] = proxy.sessions('curl').slice(before)
    expect(session).toMatchObject({ interface: name })
    expect(session?.source).toContain(own[name])
    expect(world.origin.count({ event: 'open', port: 80, address: own[name] })).toBeGreaterThan(0)
  })

  test('a socket bound to the second interface keeps address and interface when carried directly', async () => {
    const result = await dial(world.client, [address, 22], { device: 'wan1', send: 'hello', read: 18 })
    expect(result).toMatchObject({ end: 'closed', address: own.wan1, first: 'SSH-2.0-righello' })
    expect(await proxy.session(result.port)).toMatchObject({ interface: 'wan1' })
    const seen = await world.origin.event({ event: 'close', port: 22, address: own.wan1 })
    // The origin talked to the proxy's own connection, from the same address.
    expect(seen.peerPort).not.toBe(result.port)
  })

  test('Python fetches a page', async () => {
    const before = proxy.sessions().length
    const script = `import urllib.request as r; print(len(r.urlopen("http://${host}/bytes/100000", timeout=5).read()))`
    const { stdout, stderr } = await world.client.run('/usr/bin/python3', ['-c', script])
    expect(stdout + stderr).toBe('100000')
    expect(proxy.sessions().slice(before)).toMatchObject([{ destination: `${host}:80` }])
  })

  test('a static program exchanges bytes', async () => {
    const result = await dial(world.client, [address, 7], { echo: 3_000_000 })
    expect(result).toMatchObject({ end: 'closed', received: 3_000_000, equal: true })
    expect(await proxy.end(result.port)).toMatchObject({ sent: 3_000_000, received: 3_000_000 })
  })

  test('a server that speaks first is heard before the program says anything', async () => {
    const result = await dial(world.client, [address, 22], { read: 13 })
    expect(result).toMatchObject({ end: 'closed', first: 'SSH-2.0-rig' })
  })

  test('the connection knows its program, user and cgroup', async () => {
    const result = await dial(world.client, [address, 22], { read: 13 }, { cgroup: 'who' })
    const { process } = await proxy.session(result.port)
    const cgroup = withinHierarchy(`${world.client.cgroup}/who`)
    expect(process).toEqual({ pid: expect.any(Number), name: 'client', uid: 0, gid: 0, cgroup })
  })

  test('a program of another user is intercepted, and known as such', async () => {
    const as = ['setpriv', '--reuid', '65534', '--regid', '65533', '--clear-groups']
    const result = await dial(world.client, [address, 22], { read: 13 }, { as })
    expect(result.first).toBe('SSH-2.0-rig')
    expect((await proxy.session(result.port)).process).toMatchObject({ uid: 65534, gid: 65533, name: 'client' })
  })

  test.each([0x74700000, 0x74700080, 0x7470ffff, 0xffffffff])(
    'a mark of its own (%i) exempts no program',
    async (mark) => {
      const result = await dial(world.client, [address, 22], { mark, read: 13 })
      expect(result.first).toBe('SSH-2.0-rig')
      expect(await proxy.session(result.port)).toMatchObject({ destination: `${host}:22` })
    },
  )

  test('a daemon that has forked twice and left its session is intercepted', async () => {
    const before = proxy.sessions('curl').length
    const script = `(setsid sh -c 'curl -s -m 5 -o /run/page-$0 http://${host}/ &' "$0" &)`
    await world.client.run('sh', ['-c', script, host])
    await expect.poll(() => proxy.sessions('curl').length).toBe(before + 1)
    await expect.poll(async () => (await world.client.run('cat', [`/run/page-${host}`])).stdout).toContain('hello')
  })

  test('the port of the listener, dialled directly, is closed at once', async () => {
    const listening = await world.client.must('ss', '-Hltnp')
    const ports = [...listening.matchAll(/(\S+):(\d+) .*pid=(\d+)/g)]
      .filter(([, where, , pid]) => Number(pid) === proxy.pid && where?.includes(loopback))
      .map(([, , port]) => Number(port))
    expect(ports).toHaveLength(2)
    const fds = proxy.fds
    for (const port of ports)
      for (let n = 0; n < 5; n++) {
        const result = await dial(world.client, [loopback, port], { send: 'hello' })
        expect(result.end).toBe('ECONNRESET')
      }
    await expect.poll(() => proxy.fds).toBe(fds)
  })
})
