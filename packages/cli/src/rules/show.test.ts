import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { rulesTable } from './show.ts'

it('has a line for each rule, and the default’s last', () => {
  const state = {
    rules: [
      { number: 1, packets: 12, bytes: 3400, rule: 'drop tcp' },
      { number: 2, packets: 0, bytes: 0, rule: 'drop tcp dport 25' },
    ],
    default: { action: 'proxy', packets: 7, bytes: 420 },
    shadowed: [{ rule: 2, by: 1 }],
  } as const
  expect(rulesTable(state, false)).toBe(`#  packets   bytes  rule
1       12  3.4 kB  drop tcp
2        0     0 B  drop tcp dport 25  (never matches: rule 1 covers it)
         7   420 B  default proxy`)
})

it('ends with who reads it, such as head(1)', async () => {
  const script = `
import { showRules } from ${JSON.stringify(fileURLToPath(new URL('show.ts', import.meta.url)))}
import { setTimeout as sleep } from 'node:timers/promises'
async function* states() {
  for (let packets = 0; ; packets++, await sleep(50))
    yield { rules: [], default: { action: 'proxy', packets, bytes: 0 }, shadowed: [] }
}
await showRules({ watch: true, json: true }, states())`
  const options = ['--conditions=@tproxy/source', '--input-type=module', '-e', script]
  const child = spawn(process.execPath, options, { stdio: ['ignore', 'pipe', 'inherit'], timeout: 20_000 })
  const [first] = (await once(child.stdout, 'data')) as [Buffer]
  child.stdout.destroy()
  expect(JSON.parse(String(first))).toMatchObject({ event: 'rules', default: { packets: 0 } })
  expect(await once(child, 'exit')).toEqual([0, null])
})
