import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { firstValueFrom, toArray } from 'rxjs'
import { expect, test } from 'vitest'
import { endpoint } from './endpoint.ts'
import type { Plugin } from './plugin.ts'
import type { Session } from './session.ts'
import { claimed } from './testing/claim.ts'
import { ending } from './testing/ending.ts'
import { socketPair } from './testing/socket-pair.ts'
import { echo, useStage } from './testing/stage.ts'
import { direct } from './verdict.ts'

const destination = { address: '203.0.113.1', port: 443 }

const stage = useStage()

test('closing lets sessions finish until the deadline, resets the rest, and completes the streams', async () => {
  const { dial } = await stage.origin(echo)
  const { proxy, transport, nextSession } = await stage.start({}, dial)
  const all = firstValueFrom(proxy.sessions.pipe(toArray()))
  const pending = nextSession()
  const client = await transport.connect({ destination })
  client.write('x')
  await once(client, 'data')
  const ended = ending(client)
  const started = performance.now()
  await proxy.close({ drainMs: 100 })
  expect(performance.now() - started).toBeGreaterThan(95)
  expect((await pending).end).toEqual({ how: 'aborted' })
  expect(await ended).toBe('ECONNRESET')
  expect(await all).toHaveLength(1)
})

test.each<[string, Plugin | undefined]>([
  ['as soon as it is told', undefined],
  [
    'by the plugin that decided',
    function closing({ session }) {
      void session.then((it) => it.close())
      return direct()
    },
  ],
])('a session that is closed %s ends, also where its destination is reached at once', async (_, plugin) => {
  const { proxy, transport, nextSession } = await stage.start(
    plugin === undefined ? {} : { plugins: [plugin] },
  )
  if (plugin === undefined) proxy.sessions.subscribe((session) => void session.close())
  const pending = nextSession()
  const [[program, socket], [near, far]] = await Promise.all([socketPair(), socketPair()])
  const source = endpoint('192.0.2.1', 1)
  transport.accepted.next({ ...claimed({ destination }), socket, source, direct: () => near })
  expect(await Promise.all([ending(program), ending(far)])).toEqual(['ECONNRESET', 'ECONNRESET'])
  expect((await (await pending).ended).end).toEqual({ how: 'aborted' })
})

test('closing waits for what is not decided yet, and takes nothing once that is over', async () => {
  const { dial } = await stage.origin(echo)
  const { promise: asked, resolve: ask } = Promise.withResolvers<void>()
  const { promise: answer, resolve: decide } = Promise.withResolvers<ReturnType<typeof direct>>()
  const slow: Plugin = () => {
    ask()
    return answer
  }
  const { proxy, transport, nextSession } = await stage.start({ plugins: [slow] }, dial)
  const sessions: Session[] = []
  proxy.sessions.subscribe((session) => sessions.push(session))
  const pending = nextSession()
  const client = await transport.connect({ destination })
  await asked
  // Late: after the last session's end.
  const late = [await socketPair(), await socketPair()] as const
  const received = text(client)
  const close = transport.close.bind(transport)
  transport.close = async () => {
    await received
    for (const [, socket] of late)
      transport.accepted.next({
        ...claimed({ destination }),
        socket,
        source: endpoint('192.0.2.1', 1),
        direct: dial,
      })
    await close()
  }
  const closing = proxy.close({ drainMs: 5000 })
  decide(direct())
  client.end('hello')
  expect(await received).toBe('hello')
  await closing
  expect((await pending).end).toEqual({ how: 'closed' })
  expect(sessions).toHaveLength(1)
  for (const socket of late.flat()) socket.destroy()
})
