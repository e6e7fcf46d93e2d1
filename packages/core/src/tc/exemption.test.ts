import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const path = (name: string) => JSON.stringify(fileURLToPath(new URL(name, import.meta.url)))

/** A proxy on this host, and a second in which we have no descriptor left. */
const script = `
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { UpstreamExemption } from ${path('exemption.ts')}
import { startTime } from ${path('instances.ts')}
const listen = "const s = require('net').createServer().listen(0, '127.0.0.1', () => console.log(s.address().port))"
const proxy = spawn(process.execPath, ['-e', listen])
const port = Number((await once(proxy.stdout, 'data'))[0])
const said = []
const exemption = new UpstreamExemption({ exempt: () => said.push('exempt'), intercept: () => said.push('intercept') })
await exemption.ensure({ host: '127.0.0.1', port })
const taken = []
try {
  for (;;) taken.push(openSync('/dev/null'))
} catch {}
let why
try {
  startTime(proxy.pid)
} catch (error) {
  why = error.code
}
await sleep(1200)
for (const fd of taken) closeSync(fd)
console.log(why, said.join())
proxy.kill()
await once(proxy, 'close')
await sleep(1200)
console.log(said.join())
exemption[Symbol.dispose]()`

test('a proxy on this host stays exempt while we have no descriptor to look whether it lives', () => {
  const node = `ulimit -n 100; exec "$0" --conditions=@tproxy/source --input-type=module -e "$1"`
  const { stdout, stderr } = spawnSync('bash', ['-c', node, process.execPath, script], { encoding: 'utf8' })
  expect(stderr).toBe('')
  expect(stdout).toBe('E_SYSTEM exempt\nexempt,intercept\n')
}, 20_000)
