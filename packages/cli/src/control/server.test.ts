import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { NEVER, startWith } from 'rxjs'
import { afterAll, expect, it } from 'vitest'
import { serve } from './server.ts'

const directory = mkdtempSync(`${tmpdir()}/tproxy-control-`)
afterAll(() => rmSync(directory, { recursive: true }))

it('ends although somebody who asked does not read', async () => {
  const path = `${directory}/unread.sock`
  let asked = () => {}
  const answered = new Promise<void>((resolve) => (asked = resolve))
  const server = await serve(path, () => {
    setImmediate(asked)
    // More than a socket holds.
    return NEVER.pipe(startWith('x'.repeat(900_000)))
  })
  const client = connect(path).pause()
  client.write('{"request":"watch"}\n')
  await answered
  const before = performance.now()
  await server[Symbol.asyncDispose]()
  expect(performance.now() - before).toBeLessThan(1000)
  client.destroy()
})
