import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

/** A descriptor that is readable all the time, whose third call back throws. */
const script = `
import { c, watchReadable } from ${JSON.stringify(fileURLToPath(new URL('ffi.ts', import.meta.url)))}
const epoll = c.createEpoll('epoll_create1', 0o2000000)
const always = c.socket('socket', 2, 2 | 0o4000, 0)
const event = Buffer.alloc(16)
event.writeUInt32LE(4)
c.controlEpoll('epoll_ctl', epoll, 1, always, event)
let calls = 0
const watch = watchReadable(epoll, () => {
  calls++
  if (calls === 3) throw new Error('by the third')
  if (calls === 10) watch.close()
})
watch.ref()
process.on('uncaughtException', ({ message }) => console.log(message))
process.on('exit', () => console.log(calls))`

test('an error in what native code calls back is heard of, and is not the end of being called back', () => {
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 10_000,
  })
  expect(stderr).toBe('')
  expect(stdout).toBe('by the third\n10\n')
})
