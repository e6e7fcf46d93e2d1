import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const bin = fileURLToPath(new URL('bin.ts', import.meta.url))
/** Where there are no programs at all. */
const run = (...words: readonly string[]) =>
  spawnSync(process.execPath, ['--conditions=@tproxy/source', bin, ...words], {
    encoding: 'utf8',
    env: { ...process.env, PATH: '/nonexistent' },
  })

it.each([
  [['statsu'], 'statsu: command not found (did you mean status?)'],
  [['-v', 'relaod', '--reset'], 'relaod: command not found (did you mean reload?)'],
  [['help'], 'help: command not found (see tproxy-run --help)'],
  [['--', 'statsu'], 'statsu: command not found'],
  [['./statsu'], './statsu: command not found'],
  [['quite-another'], 'quite-another: command not found'],
])('a program that is not there may be a word of ours: %j', (words, says) => {
  expect(run(...words)).toMatchObject({ status: 127, stdout: '', stderr: `tproxy-run: ${says}\n` })
})
