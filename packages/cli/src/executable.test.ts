import { expect, it } from 'vitest'
import { findExecutable } from './executable.ts'

it('looks along PATH for names, and in the working directory for paths', () => {
  expect(findExecutable('sh', '/nowhere:/bin', '/')).toEqual({ found: '/bin/sh' })
  expect(findExecutable('./sh', '', '/bin')).toEqual({ found: '/bin/sh' })
})

it('tells what is not there from what cannot be executed', () => {
  expect(findExecutable('passwd', '/etc', '/')).toEqual({ missing: 'not executable' })
  expect(findExecutable('/tmp', '', '/')).toEqual({ missing: 'a directory' })
  expect(findExecutable('no-such-command', '/bin:/etc', '/')).toEqual({ missing: 'not found' })
  expect(findExecutable('/etc/passwd/x', '', '/')).toEqual({ missing: 'not found' })
})
