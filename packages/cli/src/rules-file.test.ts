import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { expect, it } from 'vitest'
import { Problems } from './problems.ts'
import { readRules } from './rules-file.ts'
import { readFiles } from './settings.ts'

it('keeps the order of the command line', () => {
  expect(readRules([{ text: 'drop tcp dport 25' }, { text: 'direct to 10.0.0.0/8' }])).toMatchObject({
    rules: [
      { action: 'drop', protocol: 'tcp', dport: 25 },
      { action: 'direct', to: '10.0.0.0/8' },
    ],
    default: undefined,
    problems: [],
  })
})

it('tells at once what does not parse and what is missing', () => {
  const { problems } = readRules([{ file: '/nonexistent' }, { text: 'drop dport x' }])
  expect(problems).toEqual([
    '--rules /nonexistent: no such file',
    expect.stringContaining('at column 12: expected a port'),
  ])
})

it('tells in plain words why a file cannot be read', () => {
  const { problems } = readRules([{ file: '/tmp' }, { file: '/etc/hostname/x' }])
  expect(problems).toEqual([
    '--rules /tmp: is a directory, not a file',
    '--rules /etc/hostname/x: no such file',
  ])
})

it('tells where a file names what this host does not know', async () => {
  const directory = mkdtempSync(`${tmpdir()}/rules-`)
  try {
    writeFileSync(`${directory}/a.rules`, '# mine\ndrop tcp dport 25\n  proxy uid 0,nosuch\n')
    writeFileSync(
      `${directory}/b.yaml`,
      'rules:\n  - redirect:nosuch0 to 192.0.2.0/24\n  - { action: drop, not: { gid: [0, none] } }\n',
    )
    const sources = {
      config: `${directory}/b.yaml`,
      rules: [{ text: 'drop uid another' }, { file: `${directory}/a.rules` }],
    }
    const { problems } = await readFiles(sources).then(
      () => new Problems([]),
      (error: Problems) => error,
    )
    expect(problems.map((problem) => problem.replace(`${directory}/`, ''))).toEqual([
      'rule "drop uid another": there is no user another (see: getent passwd)',
      'a.rules:3:15: there is no user nosuch (see: getent passwd)',
      'b.yaml:2:14: redirect:nosuch0: there is no interface nosuch0 (see: ip link)',
      'b.yaml:3:37: there is no group none (see: getent group)',
    ])

    writeFileSync(`${directory}/a.rules`, 'drop udp\ndefault redirect:nosuch0\n')
    writeFileSync(`${directory}/b.yaml`, 'rules: []\ndefault-action: direct\n')
    for (const config of [undefined, sources.config])
      await expect(readFiles({ ...sources, config, rules: sources.rules.slice(1) })).rejects.toMatchObject({
        problems: [
          `${directory}/a.rules:2:18: redirect:nosuch0: there is no interface nosuch0 (see: ip link)`,
        ],
      })
  } finally {
    rmSync(directory, { recursive: true })
  }
})
