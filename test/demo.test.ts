import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

test('the demonstration shows what it says, on a machine where nothing was tried before', async () => {
  const demo = new URL('../scripts/demo.ts', import.meta.url).pathname
  const { RIG_TRIAL: _, ...env } = process.env
  const { stdout } = await promisify(execFile)(process.execPath, ['--conditions=@tproxy/source', demo], {
    env,
  })
  expect(stdout).toMatch(/GET \/secret from (?!.*198\.51\.100\.2)/)
  expect(stdout).toContain('of the client are as they were before')
}, 60_000)
