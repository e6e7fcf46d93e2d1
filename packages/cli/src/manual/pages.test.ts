import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import manifest from '../../package.json' with { type: 'json' }
import { help } from '../help.ts'
import { flags } from '../options.ts'
import { commandPage } from './command-page.ts'
import { subcommands } from './commands.ts'
import { configPage } from './config-page.ts'
import { examples } from './text.ts'

const path = (name: string) => fileURLToPath(new URL(`../../man/${name}`, import.meta.url))

describe.each([
  ['tproxy-run.1', commandPage(manifest.version)],
  ['tproxy.yaml.5', configPage(manifest.version)],
])('%s', (name, page) => {
  it('is as the options and the schema say', () => {
    expect(readFileSync(path(name), 'utf8')).toBe(page)
  })

  it.each([
    ['groff', ['-man', '-ww', '-Tutf8', path(name)]],
    ['mandoc', ['-Tlint', '-Wwarning', path(name)]],
    ['man', ['--warnings', '-l', '-Tutf8', path(name)]],
  ])('%s has no complaint about it', (command, args) => {
    const { status, stderr, stdout } = spawnSync(command, args, { encoding: 'utf8' })
    expect({ status, complaints: stderr + (command === 'mandoc' ? stdout : '') }).toEqual({
      status: 0,
      complaints: '',
    })
  })
})

it('the manual has the options of a form where it has the form', () => {
  const [, show = '', explain = '', check = ''] =
    /rules\n(what each rule[^]*?)(\.TP\ntproxy-run rules explain[^]*?)(\.TP\ntproxy-run rules check[^]*?)\.TP\ntproxy-run reload/.exec(
      commandPage(manifest.version).replaceAll(/\\f[A-Z]|\\(?=-)/g, ''),
    ) ?? []
  const told = (text: string) => [...text.matchAll(/^(?:-\w, )?--(\w+)/gm)].map(([, name]) => name)
  expect(told(show)).toEqual(['watch', 'pid', 'json', 'help', 'version'])
  expect(told(explain)).toEqual(expect.arrayContaining(['config', 'uid', 'dscp', 'pid']))
  expect(told(explain)).not.toContain('watch')
  expect(told(check)).toEqual(['json', 'help', 'version'])
})

it('examples that intercept are as they work: by root', () => {
  for (const line of Object.keys(examples).filter((example) => !example.endsWith(' doctor')))
    expect(line).toMatch(/^sudo (--preserve-env=ALL_PROXY )?tproxy-run /)
  // sudo removes what a plugin without an argument looks for.
  for (const line of Object.keys(examples).filter((example) => / --plugin (socks|http)( |$)/.test(example)))
    expect(line).toContain('--preserve-env')
})

it('help and manual tell every option and subcommand', () => {
  const shown = [help(), commandPage(manifest.version).replaceAll('\\-', '-')]
  for (const text of shown) {
    for (const name of Object.keys(flags)) expect(text).toContain(`--${name}`)
    for (const name of Object.keys(subcommands)) expect(text).toMatch(new RegExp(`tproxy-run.*${name}`))
  }
  // Each between its own words and those of the next.
  const [, ...described] = shown[1]?.split(/\n\.TP\n\\fBtproxy-run\\fR /) ?? []
  for (const [name, { flags: own }] of Object.entries(subcommands)) {
    const text = described.filter((each) => each.startsWith(`\\fB${name}\\fR`)).join('')
    for (const option of Object.keys(own)) expect(text).toContain(`--${option}`)
  }
  for (const line of help().split('\n')) expect(line.length).toBeLessThanOrEqual(110)
})
