import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

const script = `
import module from 'node:module'
import { keepCompiled } from ${JSON.stringify(fileURLToPath(new URL('compiled.ts', import.meta.url)))}
keepCompiled(process.argv[1])
console.log(module.getCompileCacheDir())`

/** Where a process that asks for a directory keeps what it has compiled. */
const kept = (path: string) =>
  spawnSync(process.execPath, ['--input-type=module', '-e', script, path], {
    encoding: 'utf8',
    // It would go before ours.
    env: { ...process.env, NODE_COMPILE_CACHE: '' },
  }).stdout.trim()

describe('what is compiled', () => {
  let temporary: string
  beforeEach(() => {
    temporary = mkdtempSync(`${tmpdir()}/compiled-`)
  })
  afterEach(() => {
    rmSync(temporary, { recursive: true })
  })

  it('is kept in a directory of its own', () => {
    expect(kept(`${temporary}/new`)).toContain(`${temporary}/new`)
    expect(readdirSync(temporary)).toEqual(['new'])
  })

  it('is not looked for where others could have put it', () => {
    mkdirSync(`${temporary}/open`)
    chmodSync(`${temporary}/open`, 0o777)
    expect(kept(`${temporary}/open`)).toBe('undefined')
  })

  it('is compiled anew where nothing can be kept', () => {
    expect(kept('/proc/nowhere')).toBe('undefined')
  })
})
