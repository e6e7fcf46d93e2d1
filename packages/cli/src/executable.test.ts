import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname } from 'node:path'
import { expect, it } from 'vitest'
import { findExecutable } from './executable.ts'

it('looks along PATH for names, and in the working directory for paths', () => {
  expect(findExecutable('sh', '/nowhere:/bin', '/')).toEqual({ found: '/bin/sh' })
  expect(findExecutable('./sh', '', '/bin')).toEqual({ found: '/bin/sh' })
})

it('tells what is not there from what cannot be executed', () => {
  expect(findExecutable('passwd', '/etc', '/')).toEqual({ missing: 'not executable' })
  expect(findExecutable('/tmp', '', '/')).toEqual({ missing: 'a directory' })
  const script = `${mkdtempSync(`${tmpdir()}/tproxy-script-`)}/script`
  writeFileSync(script, '#! /no/such/shell -e\n', { mode: 0o755 })
  expect(findExecutable(script, '', '/')).toEqual({ missing: 'interpreter', interpreter: '/no/such/shell' })
  rmSync(dirname(script), { recursive: true })
  expect(findExecutable('no-such-command', '/bin:/etc', '/')).toEqual({ missing: 'not found' })
  expect(findExecutable('/etc/passwd/x', '', '/')).toEqual({ missing: 'not found' })
})
