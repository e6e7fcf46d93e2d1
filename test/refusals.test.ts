import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { useDirectory } from './rig/directory.ts'
import { cgroupMount, type Result } from './rig/host.ts'
import { parsed } from './rig/lines.ts'
import { stateOf } from './rig/state.ts'
import { run } from './rig/tproxy-run.ts'
import { tproxyRun, World } from './rig/world.ts'

const directory = useDirectory()

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

describe('what cannot be done is told in one line, and nothing has changed', () => {
  const bad = `${directory}/bad`
  const throwing = `${directory}/throwing.mjs`
  writeFileSync(bad, '# rules\ndirect dport 22\n\n  drop prot 25\n')
  writeFileSync(throwing, `throw new Error('broken at load')\n`)

  async function expectRefusal(result: Promise<Result>, says: RegExp): Promise<void> {
    const { code, stdout, stderr } = await result
    expect(stderr).toMatch(/^tproxy-run: [^\n]+\n$/)
    expect(stderr).toMatch(says)
    expect({ code, stdout }).toEqual({ code: 125, stdout: '' })
  }

  async function unchanged(work: () => Promise<void>): Promise<void> {
    const before = await stateOf(world.client)
    await work()
    expect(await stateOf(world.client)).toEqual(before)
  }

  test.each<[string, string[], RegExp]>([
    ['an unknown option', ['--plugim', 'socks'], /unknown option --plugim.*--plugin/],
    ['an unknown plugin', ['-p', 'sokcs'], /no plugin sokcs/],
    ['a bad URL', ['-p', 'socks=socks5://rig:S3cret@host:99999'], /plugin socks/],
    ['a missing interface', ['-i', 'wan9'], /no interface wan9.*wan0/],
    ['a bad rule', ['--rule', 'drop prot 25'], /column \d+|:\d+/],
    ['a bad line of a rules file', ['--rules', bad], /bad:4:/],
    ['a missing rules file', ['--rules', `${directory}/none`], /no such file/],
    ['a plugin that throws while it loads', ['-p', throwing], /throwing\.mjs.*broken at load/],
    ['a plugin file that is not there', ['-p', './nowhere.ts'], /nowhere\.ts/],
    ['what a command cannot have', ['--keep'], /--keep with a command \(.*--interface\)/],
    ['an unknown user', ['-u', 'no-such-user'], /no such user/],
  ])('%s', async (_, args, says) => {
    await unchanged(() => expectRefusal(run(world, [...args, '--', 'true']), says))
  })

  test('and for programs by its code, with what it says and the remedy', async () => {
    const { stderr } = await run(world, ['--json', '-p', 'sokcs=S3cret', '--', 'true'])
    const [event = '', text] = stderr.split('\n')
    expect(JSON.parse(event)).toEqual({
      event: 'exit',
      time: expect.any(String),
      code: 125,
      error: {
        code: 'E_PLUGIN',
        message: 'there is no plugin sokcs',
        hint: expect.stringContaining('socks and http are built in'),
      },
    })
    expect(text).toContain('tproxy-run: there is no plugin sokcs (socks and')
    for (const command of ['status', 'reload'])
      expect(parsed((await run(world, [command, '--json'])).stdout)).toEqual([
        {
          event: 'error',
          code: 'E_OPTION',
          message: 'no tproxy-run runs in this network namespace',
        },
      ])
  })

  test('a plugin that throws outside of its decisions, with its place', async () => {
    const late = `${directory}/late.mjs`
    writeFileSync(
      late,
      `export default () => () => {}\nsetTimeout(() => { throw new Error('too late') }, 2000)\n`,
    )
    await unchanged(() =>
      expectRefusal(run(world, ['-p', late, '--', 'sleep', '60']), /too late \(at .*late\.mjs:2:26\)/),
    )
  })

  test('a plugin that throws while the command is on its way into its cgroup', async () => {
    const just = `${directory}/just.mjs`
    writeFileSync(
      just,
      `import childProcess from 'node:child_process'
import { syncBuiltinESMExports } from 'node:module'
const { spawn } = childProcess
childProcess.spawn = (file, args, options) => {
  if (!args.includes('60')) return spawn(file, args, options)
  queueMicrotask(() => { throw new Error('just now') })
  return spawn('/bin/sh', ['-c', 'sleep 0.2; exec "$@"', 'sh', file, ...args], options)
}
syncBuiltinESMExports()
export default () => () => {}\n`,
    )
    await unchanged(() =>
      expectRefusal(run(world, ['-p', just, '--', 'sleep', '60']), /just now \(at .*just\.mjs:6/),
    )
  })

  test('no privileges', async () => {
    const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups']
    await unchanged(() =>
      expectRefusal(world.client.run('setpriv', [...nobody, ...tproxyRun, '--', 'true']), /CAP_BPF.*sudo/),
    )
  })

  test('no cgroup v2', async () => {
    const without = `umount -n -l ${cgroupMount} && exec "$@"`
    await unchanged(() =>
      expectRefusal(
        world.client.run('unshare', ['-m', 'sh', '-c', without, 'sh', ...tproxyRun, '--', 'true']),
        /cgroup v2 is not mounted/,
      ),
    )
  })
})
