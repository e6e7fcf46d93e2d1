import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import manifest from '../package.json' with { type: 'json' }

const bin = fileURLToPath(new URL('bin.ts', import.meta.url))
const run = (...options: readonly string[]) =>
  spawnSync(process.execPath, [...options, '--conditions=@tproxy/source', bin, '--version'], {
    encoding: 'utf8',
  })

describe('what npm installs as tproxy-run', () => {
  it('runs', () => {
    expect(run()).toMatchObject({ status: 0, stdout: `tproxy-run ${manifest.version}\n`, stderr: '' })
  })

  it('refuses an older Node, before that meets what it does not know', () => {
    const older = `Object.defineProperty(process, 'versions', { value: { node: '20.19.2' } })`
    expect(run(`--import=data:text/javascript,${encodeURIComponent(older)}`)).toMatchObject({
      status: 125,
      stdout: '',
      stderr: 'tproxy-run: needs Node 24 or newer, this is 20.19.2 (put a newer one first in PATH)\n',
    })
  })
})
