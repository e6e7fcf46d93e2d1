import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { firstValueFrom, mergeMap } from 'rxjs'
import { describe, expect, it, test } from 'vitest'
import type { Connection } from './connection.ts'
import { Interception } from './interception.ts'
import type { Session } from './session.ts'
import { ending } from './testing/ending.ts'
import { LocalTransport, TestUpstream } from './testing.ts'
import type { Accepted } from './transport.ts'
import { direct, drop, type Verdict, via } from './verdict.ts'

const destination = { address: '203.0.113.1', port: 443 }

/** Connections whose programs give up when told to: as those do that wait in connect(2). */
class Impatient extends LocalTransport {
  readonly giveUp: (() => void)[] = []
  isAtOnce = false

  constructor() {
    super()
    const next = this.accepted.next.bind(this.accepted)
    this.accepted.next = (accepted: Accepted) => {
      const whenGone = (callback: () => void) => {
        if (this.isAtOnce) callback()
        else this.giveUp.push(callback)
      }
      next({ ...accepted, whenGone })
    }
  }

  async open(): Promise<void> {
    const program = await this.connect({ destination })
    program.on('error', () => {})
  }
}

describe('a program that gives up before anybody has decided', () => {
  it('is a session that has ended, for who decides later: those after it are decided, too', async () => {
    const transport = new Impatient()
    await using interception = new Interception(transport, { drainMs: 0 })
    const sessions: Session[] = []
    let failed: unknown
    interception.connections
      .pipe(
        mergeMap(async (connection) => {
          await sleep(20)
          return connection.settle(drop())
        }),
      )
      .subscribe({ next: (session) => sessions.push(session), error: (error) => (failed = error) })
    await transport.open()
    transport.giveUp[0]?.()
    await transport.open()
    await sleep(60)
    expect(failed).toBeUndefined()
    expect(sessions.map(({ end }) => end)).toEqual([{ how: 'reset', by: 'client' }, { how: 'dropped' }])
    expect(interception.active).toBe(0)
  })

  it('has said nothing, for who looks or takes', async () => {
    const transport = new Impatient()
    await using interception = new Interception(transport, { drainMs: 0 })
    const pending = firstValueFrom(interception.connections)
    await transport.open()
    const connection = await pending
    transport.giveUp[0]?.()
    expect(connection.settled).toBe(true)
    expect(await connection.peek()).toEqual({ protocol: undefined })
    expect(connection.take()).toMatchObject({ destroyed: true })
    await expect(connection.settle(drop())).rejects.toMatchObject({ code: 'E_STATE' })
  })

  it('is nobody, where nobody could hear of it before', async () => {
    const transport = new Impatient()
    transport.isAtOnce = true
    const interception = new Interception(transport, { decisionMs: 20, drainMs: 2000 })
    const warnings: string[] = []
    const connections: Connection[] = []
    interception.warnings.subscribe((warning) => warnings.push(warning))
    interception.connections.subscribe((connection) => connections.push(connection))
    await transport.open()
    await sleep(60)
    const began = performance.now()
    await interception.close()
    expect(performance.now() - began).toBeLessThan(1000)
    expect({ warnings, connections }).toEqual({ warnings: [], connections: [] })
  })
})

test('who decides after the deadline has a session that was dropped, and those after it are decided', async () => {
  const transport = new LocalTransport()
  await using interception = new Interception(transport, { decisionMs: 30, drainMs: 0 })
  const sessions: Session[] = []
  interception.connections
    .pipe(
      mergeMap(async (connection) => {
        await sleep(sessions.length === 0 ? 80 : 0)
        return connection.settle(drop())
      }),
    )
    .subscribe((session) => sessions.push(session))
  expect(await ending(await transport.connect({ destination }))).toBe('ECONNRESET')
  await sleep(100)
  const next = await transport.connect({ destination })
  next.on('error', () => {})
  await sleep(20)
  expect(sessions.map(({ end }) => end)).toEqual([
    { how: 'dropped', error: expect.objectContaining({ code: 'E_TIMEOUT' }) },
    { how: 'dropped' },
  ])
})

const request = 'GET / HTTP/1.1\r\nHost: example.org\r\n\r\n'

/** What arrives of a request and a little more, at who decides without waiting for what it looks for. */
async function arrives(
  decide: (connection: Connection, got: (bytes: Buffer) => void) => void,
): Promise<string> {
  const chunks: Buffer[] = []
  const got = (bytes: Buffer) => chunks.push(bytes)
  const origin = new TestUpstream('origin', (socket) => void socket.on('data', got).resume())
  const transport = new LocalTransport({ direct: origin.connect })
  await using interception = new Interception(transport, { drainMs: 0 })
  interception.connections.subscribe((connection) => {
    void connection.peek()
    decide(connection, got)
  })
  const program = await transport.connect({ destination })
  program.on('error', () => {})
  await sleep(30)
  program.write(request)
  await sleep(50)
  program.end('tail')
  await sleep(50)
  return Buffer.concat(chunks).toString()
}

describe('bytes that somebody looks for and does not wait for', () => {
  it('arrive once where the connection is carried meanwhile', async () => {
    expect(await arrives((connection) => void connection.settle(direct()))).toBe(`${request}tail`)
  })

  it('arrive once where it is taken meanwhile', async () => {
    expect(await arrives((connection, got) => connection.take().on('data', got).resume())).toBe(
      `${request}tail`,
    )
  })
})

test.each([
  ['a verdict that was not called', drop as unknown as Verdict],
  ['nothing', undefined as unknown as Verdict],
  ['an unknown kind', { kind: 'deny' } as unknown as Verdict],
])('who settles with %s is told, and the program goes nowhere', async (_, verdict) => {
  const origin = new TestUpstream()
  const transport = new LocalTransport({ direct: origin.connect })
  await using interception = new Interception(transport, { decisionMs: 50, drainMs: 0 })
  const pending = firstValueFrom(interception.connections)
  const program = await transport.connect({ destination })
  await expect((await pending).settle(verdict)).rejects.toMatchObject({ code: 'E_OPTION' })
  expect(await ending(program)).toBe('ECONNRESET')
  expect({ active: interception.active, reached: origin.destinations }).toEqual({ active: 0, reached: [] })
})

test('a plain { kind: "drop" } resets, as drop() does', async () => {
  const transport = new LocalTransport()
  await using interception = new Interception(transport, { drainMs: 0 })
  interception.connections.subscribe((connection) => void connection.settle({ kind: 'drop' } as Verdict))
  const program = await transport.connect({ destination })
  expect(await ending(program)).toBe('ECONNRESET')
})

test('an upstream over a Unix socket ends with a program that resets', async () => {
  const directory = mkdtempSync(`${tmpdir()}/connection-`)
  const path = `${directory}/socket`
  const server = createServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => {}).pipe(socket))
  try {
    await once(server.listen(path), 'listening')
    const upstream = {
      name: 'unix',
      async connect() {
        const socket = connect({ path, allowHalfOpen: true })
        await once(socket, 'connect')
        return socket
      },
    }
    const transport = new LocalTransport()
    await using interception = new Interception(transport, { drainMs: 0 })
    const pending = firstValueFrom(interception.sessions)
    interception.connections.subscribe((connection) => void connection.settle(via(upstream)))
    const program = await transport.connect({ destination })
    program.on('error', () => {})
    program.write('hello')
    expect(String((await once(program, 'data'))[0])).toBe('hello')
    program.resetAndDestroy()
    expect((await (await pending).ended).end).toMatchObject({ how: 'reset', by: 'client' })
    expect(interception.active).toBe(0)
  } finally {
    server.close()
    rmSync(directory, { recursive: true })
  }
})
