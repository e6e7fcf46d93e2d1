import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadPlugins, resolvePlugin } from './plugins.ts'

const notFound = () => {
  throw Object.assign(new Error('Cannot find package'), { code: 'ERR_MODULE_NOT_FOUND' })
}
let directory = ''
const write = (name: string, text: string) => writeFileSync(`${directory}/${name}`, text)

beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/tproxy-plugins-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

describe('plugins', () => {
  it('are looked for as @tproxy/plugin-NAME, then as tproxy-plugin-NAME', () => {
    const asked: string[] = []
    const resolve = (specifier: string) => {
      asked.push(specifier)
      return specifier.startsWith('@') ? notFound() : 'file:///found.js'
    }
    expect(resolvePlugin('x', '/', resolve)).toBe('file:///found.js')
    expect(asked).toEqual(['@tproxy/plugin-x', 'tproxy-plugin-x'])
  })

  it('are never taken from the working directory without a path', () => {
    write('office.ts', '')
    expect(() => resolvePlugin('office', directory, notFound)).toThrow('or give a path, such as ./office.ts')
    expect(resolvePlugin('./office.ts', directory, notFound)).toBe(`file://${directory}/office.ts`)
  })

  it.each([
    ['socks5://user:se/cret@h:1080', 'write socks=URL'],
    ['https://user:se/cret@h', 'write http=URL'],
    ['user:secret@h', 'write socks=URL'],
    ['user:secret', 'write socks=URL'],
  ])('that are a URL are told how to write it, and not what it says: %s', (name, hint) => {
    expect(() => resolvePlugin(name, '/', notFound)).toThrow(
      expect.objectContaining({ message: `a URL is the argument of a plugin, not its name (${hint})` }),
    )
    expect(() => resolvePlugin('@office/plugin', '/', notFound)).toThrow('there is no plugin @office/plugin')
  })

  it('say when a path leads nowhere, or to a directory', () => {
    expect(() => resolvePlugin('./nope.ts', '/etc', notFound)).toThrow('there is no file /etc/nope.ts')
    expect(() => resolvePlugin('./', directory, notFound)).toThrow(
      'plugin ./ is a directory (name the file in it, such as ./index.ts)',
    )
  })

  it('get their argument, and keep their order', async () => {
    write(
      'a.mjs',
      'export default ({ argument }) => Object.defineProperty(() => {}, "name", { value: argument })',
    )
    const plugins = await loadPlugins(
      ['one', 'two'].map((argument) => ({ name: './a.mjs', argument })),
      directory,
    )
    expect(plugins.map(({ name }) => name)).toEqual(['one', 'two'])
  })

  it('without a name of their own have that of their choice', async () => {
    write('anonymous.mjs', 'export default () => (connection) => undefined')
    const [plugin] = await loadPlugins([{ name: './anonymous.mjs', argument: 'secret' }], directory)
    expect(plugin?.name).toBe('./anonymous.mjs')
  })

  it('made with definePlugin get what the file says too; others take no options', async () => {
    write(
      'defined.mjs',
      'const named = (value) => Object.defineProperty(() => {}, "name", { value })\n' +
        'export default Object.assign(() => {}, { load: (text) => named(JSON.stringify(text)) })',
    )
    const load = (name: string, argument: string | undefined, options?: Record<string, unknown>) =>
      loadPlugins([{ name, argument, options }], directory)
    expect((await load('./defined.mjs', '25', { x: 1 }))[0]?.name).toBe('{"argument":"25","options":{"x":1}}')
    expect((await load('./defined.mjs', undefined))[0]?.name).toBe('{}')
    await expect(load('./a.mjs', 'x', {})).rejects.toThrow(
      'plugin ./a.mjs: it takes no options, only an argument',
    )
  })

  it('that import what is not there say which package to install, and name no file of ours', () => {
    write('lacking.ts', "import 'not-installed/x'")
    write('lending.ts', "import '@tproxy/none'")
    write('inside.ts', "import 'zod/none'")
    // Vitest imports in its own way, and says other things.
    const script = `import(${JSON.stringify(import.meta.resolve('./plugins.ts'))}).then(({ loadPlugins }) =>
      loadPlugins([{ name: process.argv[1] }], process.argv[2])).catch(({ message }) => console.log(message))`
    const said = (name: string) =>
      execFileSync(
        process.execPath,
        ['--conditions=@tproxy/source', '-e', script, `./${name}.ts`, directory],
        { encoding: 'utf8' },
      ).trimEnd()
    expect(said('lacking')).toBe(
      `plugin ./lacking.ts does not load: Cannot find package 'not-installed' imported from ${directory}/lacking.ts (in its directory: npm install not-installed)`,
    )
    expect(said('lending')).toContain(`'@tproxy/none' imported from ${directory}/lending.ts (in its`)
    expect(said('inside')).toMatch(/Package subpath '\.\/none' is not defined by "exports" in [^ ]*$/)
  })

  it('that are none are refused with what a plugin looks like', async () => {
    write('number.mjs', 'export default 3')
    write('nothing.mjs', 'export default () => undefined')
    write('broken.mjs', 'export default () => { throw new Error("no such office") }')
    write('early.mjs', "\n\nthrow new Error('no such file')")
    const load = (name: string) => loadPlugins([{ name, argument: undefined }], directory)
    await expect(load('./early.mjs')).rejects.toThrow(
      `plugin ./early.mjs does not load: no such file (at ${directory}/early.mjs:3:7)`,
    )
    await expect(load('./number.mjs')).rejects.toThrow('no function as its default export')
    await expect(load('./nothing.mjs')).rejects.toThrow('returned no plugin')
    await expect(load('./broken.mjs')).rejects.toThrow('plugin ./broken.mjs: no such office')
  })
})
