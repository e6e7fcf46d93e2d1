import { execFileSync } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { blocks, expectLines } from './rig/page.ts'
import { microsocks } from './rig/servers.ts'
import { bootSystemd } from './rig/systemd.ts'
import { addresses, World } from './rig/world.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const template = `${root}examples/plugin-template/`

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
    rxjs: 'packages/core/node_modules/rxjs',
    zod: 'packages/core/node_modules/zod',
    typescript: 'node_modules/typescript',
    '@types/node': 'node_modules/@types/node',
    express: 'test/node_modules/express',
    '@types/express': 'test/node_modules/@types/express',
  }
  for (const name of ['@tproxy', '@types', '.bin'])
    mkdirSync(`${folder}/node_modules/${name}`, { recursive: true })
  for (const [name, path] of Object.entries(links)) symlinkSync(root + path, `${folder}/node_modules/${name}`)
  symlinkSync('../typescript/bin/tsc', `${folder}/node_modules/.bin/tsc`)
}

/** Runs lines of a shell that must succeed, and returns all that they print. */
async function run(folder: string, script: string): Promise<string> {
  const node = process.execPath.replace(/\/node$/, '')
  const { code, stdout, stderr } = await world.client.run(
    'bash',
    ['-ec', `cd ${folder}; exec 2>&1; ${script}`],
    {
      env: { PATH: `${root}:${node}:${root}node_modules/.bin:${process.env['PATH']}:/usr/sbin` },
      timeoutMs: 25_000,
    },
  )
  expect({ code, output: code === 0 ? '' : stdout + stderr }).toEqual({ code: 0, output: '' })
  return stdout
}

/** Does what a page says, in order: writes its files, runs its commands, and expects what it shows. */
async function follow(page: string, folder: string, runLines = run): Promise<void> {
  let output = ''
  for (const { language, file, text } of blocks(page)) {
    if (file !== '') writeFileSync(`${folder}/${file}`, text)
    if (file === 'package.json') install(folder)
    if (language === 'sh') output = await runLines(folder, text)
    if (language === 'text' && file === '') expectLines(output, text)
  }
  if (!blocks(page).some(({ file }) => file.endsWith('.ts'))) return
  const options =
    '--noEmit --strict --target es2025 --module nodenext --types node --allowImportingTsExtensions'
  await run(folder, `tsc ${options} --ignoreConfig *.ts`)
}

test('docs/plugins.md leads from an empty folder to a package', async () => {
  const folder = `${directory}/office`
  mkdirSync(folder)
  cpSync(`${template}tsconfig.json`, `${folder}/tsconfig.json`)
  await follow('plugins.md', folder)

  const packed = await run(folder, 'tar -tf tproxy-plugin-office-1.0.0.tgz | sort')
  expect(packed).toBe('package/dist/index.d.ts\npackage/dist/index.js\npackage/package.json\n')
  // Without its folder, as it is once it is installed.
  const script = `mkdir ../installed && tar -xf *.tgz -C ../installed && rm -r node_modules && cd ..
    tproxy-run -v --plugin ./installed/package/dist/index.js=socks5://198.51.100.1:1080 -- curl -sk https://example.org/`
  expectLines(
    await run(folder, script),
    'GET / from …\n… (example.org) …  via socks5://198.51.100.1:1080 (office)',
  )
}, 240_000)

test.each(['index.ts', 'index.test.ts', 'package.json'])(
  'docs/plugins.md shows the template’s %s',
  (file) => {
    const shown = blocks('plugins.md').find((block) => block.file === file)?.text ?? ''
    const own = readFileSync(template + file, 'utf8')
    // The formatter breaks lists of a package.json, and not those of other JSON.
    if (file.endsWith('.json')) expect(JSON.parse(shown)).toEqual(JSON.parse(own))
    else expect(shown).toBe(own)
  },
)

test('docs/observe.md does what it says', async () => {
  const folder = `${directory}/observe`
  mkdirSync(folder)
  await follow('observe.md', folder)
}, 60_000)

test.each(['README.md', 'docs/embedding.md'])(
  '%s does what it says',
  async (page) => {
    const folder = `${directory}/embedding-${page.replace('/', '-')}`
    mkdirSync(folder)
    install(folder)
    writeFileSync(`${folder}/package.json`, '{ "type": "module" }')
    await follow(`../${page}`, folder)
  },
  240_000,
)

const pages = (names: string) => names.split(' ').map((name) => `docs/${name}.md`)

async function doAsItSays(page: string): Promise<void> {
  const folder = `${directory}/${page.replace('/', '-')}`
  mkdirSync(folder)
  await follow(page.replace('docs/', ''), folder)
}

// Those that run a command only do not see each other.
describe.concurrent('commands', () => {
  test.each(pages('command rules upstreams debugging security'))('%s does what it says', doAsItSays)
})

test.each(pages('install host containers keep'))('%s does what it says', doAsItSays)

test('docs/service.md does what it says, under a systemd', async () => {
  await using systemd = await bootSystemd(world.client)
  await follow('service.md', directory, (_, script) => systemd.sh(`exec 2>&1; ${script}`))
})

test('docs/testing.md shows a test that is run', () => {
  const [shown] = blocks('testing.md').filter(({ language }) => language === 'ts')
  expect(shown?.text).toBe(readFileSync(`${root}test/example.test.ts`, 'utf8'))
})

test('docs/README.md leads to every page', () => {
  const index = readFileSync(`${root}docs/README.md`, 'utf8')
  for (const page of readdirSync(`${root}docs`))
    if (page !== 'README.md') expect(index).toContain(`(${page})`)
})
