import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { microsocks } from './rig/servers.ts'
import { addresses, World } from './rig/world.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const template = `${root}examples/plugin-template/`

/** A fenced block of a page: ```language file */
interface Block {
  readonly language: string
  readonly file: string
  readonly text: string
}

function blocks(page: string): Block[] {
  const text = readFileSync(`${root}docs/${page}`, 'utf8')
  return [...text.matchAll(/^```(\w*) ?(\S*)\n([^]*?)^```$/gm)].map(
    ([, language = '', file = '', body = '']) => ({ language, file, text: body }),
  )
}

/** Whether lines are printed in this order; … stands for anything, and other lines may come between. */
function shows(output: string, expected: string): void {
  const lines = expected.trimEnd().split('\n')
  const quoted = lines.map((line) =>
    line
      .split('…')
      .map((part) => RegExp.escape(part.trim()).replaceAll(/(\\x20| )+/g, ' +'))
      .join('.*'),
  )
  expect(stripVTControlCharacters(output)).toMatch(new RegExp(quoted.join('[^]*\n.*'), 'm'))
}

const directory = mkdtempSync(`${tmpdir()}/rig-docs-`)
let world: World
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  world = stack.use(await World.create())
  stack.defer(() => rmSync(directory, { recursive: true }))
  writeFileSync(`${directory}/hosts`, `${addresses[4].origin} example.org example.com\n`)
  for (const host of [world.client, world.internet])
    await host.sh(`mount --bind ${directory}/hosts /etc/hosts`)
  stack.use(await microsocks(world.internet, '198.51.100.1', 1080))
  execFileSync(`${root}node_modules/.bin/tsc`, ['-b', `${root}packages/plugin-socks`])
})
afterAll(() => stack.disposeAsync())

/** What `npm install` would do. */
function install(folder: string): void {
  const links = {
    '@tproxy/core': 'packages/core',
    '@tproxy/plugin-socks': 'packages/plugin-socks',
    zod: 'packages/core/node_modules/zod',
    typescript: 'node_modules/typescript',
    '@types/node': 'node_modules/@types/node',
  }
  for (const name of ['@tproxy', '@types', '.bin'])
    mkdirSync(`${folder}/node_modules/${name}`, { recursive: true })
  for (const [name, path] of Object.entries(links)) symlinkSync(root + path, `${folder}/node_modules/${name}`)
  symlinkSync('../typescript/bin/tsc', `${folder}/node_modules/.bin/tsc`)
}

async function run(folder: string, script: string): Promise<string> {
  const node = process.execPath.replace(/\/node$/, '')
  const env = { PATH: `${root}:${node}:${process.env['PATH']}`, NO_UPDATE_NOTIFIER: '1' }
  const { code, stdout, stderr } = await world.client.run(
    'bash',
    ['-ec', `cd ${folder}; exec 2>&1; ${script}`],
    { env, timeoutMs: 60_000 },
  )
  expect({ code, output: code === 0 ? '' : stdout + stderr }).toEqual({ code: 0, output: '' })
  return stdout
}

describe('docs/plugins.md', () => {
  test('leads from an empty folder to a package', async () => {
    const folder = `${directory}/office`
    mkdirSync(folder)
    const all = blocks('plugins.md')
    expect(all.filter(({ language }) => language === 'sh').length).toBeGreaterThan(8)
    cpSync(`${template}tsconfig.json`, `${folder}/tsconfig.json`)
    let output = ''
    for (const { language, file, text } of all) {
      if (file !== '') writeFileSync(`${folder}/${file}`, text)
      // Single files run without anything installed.
      if (file === 'package.json') install(folder)
      if (language === 'sh') output = await run(folder, text)
      if (language === 'text') shows(output, text)
    }
    const packed = await run(folder, 'tar -tf tproxy-plugin-office-1.0.0.tgz')
    expect(
      packed
        .trim()
        .split('\n')
        .toSorted((a, b) => (a < b ? -1 : 1)),
    ).toEqual(['dist/index.d.ts', 'dist/index.js', 'package.json'].map((file) => `package/${file}`))
    // As it is once it is installed somewhere.
    const installed = await run(
      folder,
      `mkdir -p ../elsewhere && tar -xf *.tgz -C ../elsewhere && cd .. && rm -r office
      tproxy-run -v --plugin ./elsewhere/package/dist/index.js=socks5://198.51.100.1:1080 -- curl -sk https://example.org/`,
    )
    shows(installed, 'GET / from …\n… (example.org) …  via socks5://198.51.100.1:1080 (office)')
  }, 120_000)

  test.each(['index.ts', 'index.test.ts', 'package.json'])('shows %s as it is in the template', (file) => {
    const shown = blocks('plugins.md').find((block) => block.file === file)?.text ?? ''
    const own = readFileSync(template + file, 'utf8')
    // The formatter breaks lists of a package.json, and not those of other JSON.
    if (file.endsWith('.json')) expect(JSON.parse(shown)).toEqual(JSON.parse(own))
    else expect(shown).toBe(own)
  })
})
