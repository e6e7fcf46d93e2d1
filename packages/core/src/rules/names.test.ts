import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeEach, expect, test, vi } from 'vitest'
import { systemNames } from './names.ts'
import { parseRule } from './text.ts'

const directory = mkdtempSync(`${tmpdir()}/tproxy-names-`)
const log = `${directory}/log`
const asked = () => readFileSync(log, 'utf8').trimEnd().split('\n')

/** A system that knows more users and groups than its files. */
const getent = `#!/bin/sh
echo "$*" >>${log}
case $* in
'passwd alice@corp.example') echo 'alice:*:70001:70002:Alice:/home/alice:/bin/sh' ;;
'group staff@corp.example') echo 'staff:*:70003:alice' ;;
'passwd none') echo 'none:*::::' ;;
*) exit 2 ;;
esac
`

beforeEach(() => {
  writeFileSync(log, '')
  writeFileSync(`${directory}/getent`, getent, { mode: 0o755 })
  vi.stubEnv('PATH', `${directory}:${process.env['PATH'] ?? ''}`)
})
afterAll(() => {
  vi.unstubAllEnvs()
  rmSync(directory, { recursive: true })
})

test('users and groups that are not in the files are asked of the system, once', () => {
  const names = systemNames()
  for (const _ of [1, 2]) {
    expect(names.user('alice@corp.example')).toBe(70_001)
    expect(names.group('staff@corp.example')).toBe(70_003)
    expect(names.user('bob')).toBeUndefined()
    expect(names.user('none')).toBeUndefined()
  }
  expect(asked()).toEqual([
    ...['passwd alice@corp.example', 'group staff@corp.example', 'passwd bob', 'passwd none'],
  ])
  expect(parseRule('drop uid alice@corp.example')).toEqual({ action: 'drop', uid: 'alice@corp.example' })
})

test('nobody is asked for what the files have, nor for what would be taken for an option or a number', () => {
  const names = systemNames()
  expect(names.user('root')).toBe(0)
  expect(names.group('root')).toBe(0)
  for (const name of ['-s', '--help', '4294967296', '+0', ' 0', '']) expect(names.user(name)).toBeUndefined()
  expect(readFileSync(log, 'utf8')).toBe('')
})
