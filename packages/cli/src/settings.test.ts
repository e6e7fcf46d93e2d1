import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, expect, it } from 'vitest'
import { parseInvocation } from './invocation.ts'
import { readSettings } from './settings.ts'

const directory = mkdtempSync(`${tmpdir()}/tproxy-settings-`)
const [config, list] = [`${directory}/tproxy.yaml`, `${directory}/my.rules`]
afterAll(() => rmSync(directory, { recursive: true }))

function settings(...args: readonly string[]): ReturnType<typeof readSettings> {
  const invocation = parseInvocation(['--config', config, ...args, '--', 'true'])
  if (invocation.form !== 'command') throw new Error('no command')
  return readSettings(invocation.options)
}

it('puts plugins and rules of the command line first, and its other options in place of the file’s', async () => {
  writeFileSync(
    config,
    `plugins: [socks, ./x.ts=y, { name: ../z.ts, options: { a: 1 } }]
interfaces: [eth0]
rules: [direct]
default-action: drop
default-verdict: drop
idle-timeout: 5m
drain-timeout: 1
mark: 0x10000
table: 7
names: true
`,
  )
  writeFileSync(list, 'drop\ndefault reject\n')
  const options = [
    '-p',
    'http=http://h',
    '-p',
    './here.ts',
    '--rules',
    list,
    '-i',
    'wan0',
    '--idle-timeout',
    '9',
    '--mark',
    '1',
  ]
  expect(await settings(...options)).toMatchObject({
    plugins: [
      { name: 'http', argument: 'http://h' },
      { name: './here.ts' },
      { name: 'socks' },
      { name: './x.ts', argument: 'y', from: directory },
      { name: '../z.ts', options: { a: 1 }, from: directory },
    ],
    interfaces: ['wan0'],
    rules: [{ action: 'drop' }, { action: 'direct' }],
    defaultAction: 'reject',
    default: 'drop',
    names: true,
    timeouts: { idleMs: 9000, drainMs: 1000 },
    routing: { mark: 1, table: 7 },
  })
  expect(await settings('--default', 'direct')).toMatchObject({
    interfaces: ['eth0'],
    defaultAction: 'drop',
    default: 'direct',
    timeouts: { idleMs: 300_000 },
  })
})

it('refuses to keep what only the kernel could', async () => {
  writeFileSync(config, 'carry: relay\n')
  await expect(settings('--keep')).rejects.toMatchObject({
    code: 'E_OPTION',
    message: expect.stringContaining('keep with carry relay'),
  })
  await expect(settings('--keep', '--carry', 'splice')).resolves.toMatchObject({ keep: true })
})

it('tells at once what is wrong with all files', async () => {
  writeFileSync(config, 'rules: [deny, allow]')
  writeFileSync(list, 'permit')
  await expect(settings('--rules', list)).rejects.toMatchObject({
    problems: [
      expect.stringContaining(`${list}:1:1: expected an action`),
      expect.stringContaining(`${config}:1:9: expected an action`),
      expect.stringContaining(`${config}:1:15: expected an action`),
    ],
  })
})
