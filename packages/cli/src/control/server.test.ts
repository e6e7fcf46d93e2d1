import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { text } from 'node:stream/consumers'
import { finalize, map, NEVER, of, startWith, take, timer } from 'rxjs'
import { afterAll, expect, it } from 'vitest'
import { type Answer, serve } from './server.ts'

const directory = mkdtempSync(`${tmpdir()}/tproxy-control-`)
afterAll(() => rmSync(directory, { recursive: true }))

const path = `${directory}/asked.sock`
const request = '{"request":"watch"}\n'

/** A client that hears answers after it has said all, as nc -N does. */
function ask(said = request): Socket {
  const client = connect({ path, allowHalfOpen: true }).on('error', () => {})
  return client.end(said)
}

/** Resolves with what nobody has caught while `work` ran. */
async function uncaught(work: () => Promise<void>): Promise<unknown[]> {
  const errors: unknown[] = []
  const note = (error: unknown) => errors.push(error)
  process.on('uncaughtException', note)
  await work()
  process.off('uncaughtException', note)
  return errors
}

it('ends although somebody who asked does not read', async () => {
  let asked = () => {}
  const answered = new Promise<void>((resolve) => (asked = resolve))
  const server = await serve(path, () => {
    setImmediate(asked)
    // More than a socket holds.
    return NEVER.pipe(startWith('x'.repeat(900_000)))
  })
  const client = connect(path).pause()
  client.write(request)
  await answered
  const before = performance.now()
  await server[Symbol.asyncDispose]()
  expect(performance.now() - before).toBeLessThan(1000)
  client.destroy()
})

it('outlives clients that go away in the middle of an answer, and stops answering them', async () => {
  let running = 0
  const answer: Answer = () => {
    running++
    return timer(0, 5).pipe(
      map(() => 'x'.repeat(300_000)),
      finalize(() => running--),
    )
  }
  await using _server = await serve(path, answer)
  const errors = await uncaught(async () => {
    for (const reads of [true, false]) {
      const client = ask()
      if (reads) await once(client, 'data')
      await expect.poll(() => running).toBe(1)
      client.destroy()
      await expect.poll(() => running).toBe(0)
    }
  })
  expect(errors).toEqual([])
})

it('answers who has said all, at once and as long as there is something to tell', async () => {
  const answers: Answer[] = [() => of('a'), () => timer(20, 20).pipe(take(3))]
  const said: string[] = []
  for (const answer of answers) {
    await using _server = await serve(path, answer)
    said.push(await text(ask()))
  }
  expect(
    said.map((lines) =>
      lines
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ),
  ).toEqual([[{ answer: 'a' }], [{ answer: 0 }, { answer: 1 }, { answer: 2 }]])
  await using _server = await serve(path, () => NEVER)
  expect(await text(ask(''))).toBe('')
})

it('hears that a client is gone to whom there is nothing to tell', async () => {
  let running = 0
  await using _server = await serve(path, () => {
    running++
    return NEVER.pipe(finalize(() => running--))
  })
  const client = connect(path)
  client.write(request)
  await expect.poll(() => running).toBe(1)
  client.destroy()
  await expect.poll(() => running).toBe(0)
})
