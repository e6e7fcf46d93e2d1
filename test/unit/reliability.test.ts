import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const page = readFileSync(`${root}docs/reliability.md`, 'utf8')

/** `[name]: ../path` */
const files = new Map(
  [...page.matchAll(/^\[(.+)\]: \.\.\/(.+)$/gm)].map(([, name = '', path = '']) => [name, path]),
)
const claims = [...page.matchAll(/^\|.*\| (.+?) +\|$/gm)]
  .map(([, cell = '']) => cell)
  .filter((cell) => !/^(what holds|-+)$/.test(cell))

/** All tests by file, with the titles of what they are in; … stands for what a table of cases fills in. */
const titles = Map.groupBy(
  JSON.parse(
    execFileSync(`${root}node_modules/.bin/vitest`, ['list', '--static-parse', '--json'], {
      cwd: root,
      encoding: 'utf8',
      maxBuffer: 1 << 24,
    }),
  ) as { name: string; file: string }[],
  ({ file }) => file.slice(root.length),
)
const dotted = (title: string) => title.replace(/%[sij]|\$\w+|\$\{.+?\}/g, '…')

test('every promise of the page is kept by a test, or said to be open', () => {
  expect(claims.length).toBeGreaterThan(80)
  for (const claim of claims) expect(claim).toMatch(/^(\[[\w/-]+\] \S|Open: \S)/)
})

test('every test that the page names is there', () => {
  const named = claims.filter((claim) => claim.startsWith('['))
  const absent = named.filter((claim) => {
    const [, name = '', title] = /^\[(.+?)\] (.+)$/.exec(claim) ?? []
    const tests = titles.get(files.get(name) ?? '') ?? []
    return !tests.some((each) => ` > ${dotted(each.name)}`.endsWith(` > ${title}`))
  })
  expect(absent).toEqual([])
})

test('every file that the page links to is named', () => {
  const unused = [...files.keys()].filter((name) => !claims.some((claim) => claim.startsWith(`[${name}] `)))
  expect(unused).toEqual([])
})
