import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial, holdDial } from './rig/client.ts'
import { useDirectory } from './rig/directory.ts'
import { stateOf } from './rig/state.ts'
import { bootSystemd, type Systemd } from './rig/systemd.ts'
import { addresses, World } from './rig/world.ts'

const { origin } = addresses[4]
const unit = fileURLToPath(new URL('../packages/cli/systemd/tproxy.service', import.meta.url))
const directory = useDirectory()

let world: World
beforeAll(async () => {
  world = await World.create()
})
afterAll(() => world?.close())

const config = (...rules: readonly string[]) =>
  `interfaces: [wan0]\nrules:\n${rules.map((rule) => `  - ${rule}\n`).join('')}`

test('tells the service manager how it is doing', async () => {
  // Abstract; systemd's own, below, is a path.
  const socket = '@rig/notify'
  const file = `${directory}/tproxy.yaml`
  writeFileSync(file, config('drop tcp dport 9'))
  const listen = `
import json, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('${socket}'.replace('@', chr(0)))
print('up', flush=True)
while True: print(json.dumps(dict(l.split('=', 1) for l in s.recv(4096).decode().split('\\n'))), flush=True)`
  await using manager = world.client.spawn('python3', ['-c', listen])
  await manager.until(({ stdout }) => stdout.startsWith('up'), 'a socket')
  const env = { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '200000' }
  await using program = world.run(['-c', file], { env, input: '' })
  const told = () => manager.events.filter((event) => event.WATCHDOG === undefined)
  await manager.until(() => told().length === 1, 'that it is ready')
  await manager.until(({ events }) => events.length > told().length + 2, 'signs of life')

  writeFileSync(file, `${config('drop tcp')}idle-timeout: 5m\n`)
  const before = process.hrtime.bigint() / 1000n
  program.kill('SIGHUP')
  await manager.until(() => told().length === 3, 'that it has reloaded')
  writeFileSync(file, 'rules: [deny]\n')
  program.kill('SIGHUP')
  await manager.until(() => told().length === 5, 'that it has not')
  expect(await program.stop()).toMatchObject({ code: 0 })
  expect(told()).toEqual([
    { READY: '1', STATUS: 'ready  all programs on wan0: 1 rule → direct' },
    { RELOADING: '1', MONOTONIC_USEC: expect.stringMatching(/^\d+$/) },
    {
      READY: '1',
      STATUS: 'reloaded  1 rule → proxy  changed, but only a restart puts it in force: idle-timeout',
    },
    { RELOADING: '1', MONOTONIC_USEC: expect.any(String) },
    { READY: '1', STATUS: expect.stringContaining(`the rules stay as they are: ${file}:1:9: expected`) },
    { STOPPING: '1', STATUS: 'connections finish', EXTEND_TIMEOUT_USEC: '20000000' },
  ])
  expect(BigInt(told()[1].MONOTONIC_USEC)).toBeGreaterThanOrEqual(before)
})

describe('under systemd, by the unit that comes with it', () => {
  let systemd: Systemd
  const stack = new AsyncDisposableStack()
  const property = async (name: string) =>
    (await systemd.sh(`systemctl show --value -p ${name} tproxy`)).trim()
  const write = (text: string) => systemd.sh(`cat >/etc/tproxy/tproxy.yaml <<'END'\n${text}END`)

  /** Of /run and cgroups, systemd has its own. */
  const network = async () => {
    const { cgroups: _cgroups, 'ls -AR /run': _run, ...state } = await stateOf(world.client)
    return state
  }

  beforeAll(async () => {
    systemd = stack.use(await bootSystemd(world.client))
    await systemd.sh(`
      useradd --system --no-create-home tproxy
      mkdir /etc/tproxy
      cp ${unit} /etc/systemd/system
      mkdir /etc/systemd/system/tproxy.service.d
      printf '[Service]\\nWatchdogSec=1\\nRestartSec=100ms\\nStandardOutput=append:/run/log\\nStandardError=append:/run/log\\n' \\
        >/etc/systemd/system/tproxy.service.d/rig.conf
      systemctl daemon-reload`)
  })
  afterAll(() => stack.disposeAsync())

  test('it starts, and has the capabilities of the unit and nothing else', async () => {
    const before = await network()
    await write(config('drop tcp dport 9'))
    await systemd.sh('systemctl start tproxy || { cat /run/log; exit 1; }')
    expect(await property('StatusText')).toBe('ready  all programs on wan0: 1 rule → direct')
    const status = await systemd.sh('cat /proc/$(systemctl show --value -p MainPID tproxy)/status')
    const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, 'm').exec(status)?.[1]
    const three = ((1n << 39n) | (1n << 38n) | (1n << 12n)).toString(16).padStart(16, '0')
    for (const set of ['CapEff', 'CapPrm', 'CapBnd']) expect(field(set)).toBe(three)
    expect([field('NoNewPrivs'), field('Seccomp')]).toEqual(['1', '2'])
    expect(field('Uid')).not.toBe('0')

    for (const family of [4, 6] as const)
      await world.client.sh(`curl -s -m 3 http://${addresses[family].url}`)
    expect(await dial(world.client, [origin, 9], { timeout: 0.5 })).toMatchObject({ end: 'timeout' })
    await systemd.sh('systemctl stop tproxy')
    expect(await systemd.sh('cat /run/log')).toMatch(/203\.0\.113\.10:80 .*\n.*\[2001:db8:2::10\]:80/)
    expect([await property('ActiveState'), await property('Result')]).toEqual(['inactive', 'success'])
    expect(await systemd.sh('ls -A /run/tproxy')).toBe('trial.json\n')
    expect(await network()).toEqual(before)
  })

  test('it is reloaded without losing a connection, and what is wrong has systemctl fail', async () => {
    await write(config('drop tcp dport 9'))
    await systemd.sh('systemctl start tproxy')
    const pid = await property('MainPID')
    const held = await holdDial(world.client, [origin, 7], { echo: 1000 })
    await write(config('reject tcp dport 22'))
    await systemd.sh('systemctl reload tproxy')
    expect(await dial(world.client, [origin, 22])).toMatchObject({ end: 'ECONNREFUSED' })
    await write('rules: [deny]\n')
    expect((await systemd.run('systemctl reload tproxy')).code).toBe(1)
    expect(await property('StatusText')).toContain('the rules stay as they are: /etc/tproxy/tproxy.yaml:1:9')
    expect(await dial(world.client, [origin, 22])).toMatchObject({ end: 'ECONNREFUSED' })
    expect(await held.release()).toMatchObject({ equal: true })
    expect([await property('ActiveState'), await property('MainPID')]).toEqual(['active', pid])
  })

  test('its watchdog restarts one that hangs', async () => {
    await write(config('drop tcp dport 9'))
    await systemd.sh('kill -STOP $(systemctl show --value -p MainPID tproxy)')
    await systemd.sh(
      'for _ in $(seq 100); do [ "$(systemctl show --value -p NRestarts tproxy)" = 1 ] && exit; sleep .1; done; exit 1',
    )
    await systemd.sh('for _ in $(seq 50); do systemctl is-active -q tproxy && exit; sleep .1; done; exit 1')
    await world.client.sh(`curl -s -m 3 http://${origin}`)
    await systemd.sh('systemctl stop tproxy')
  })

  test('it is what systemd-analyze has nothing against', async () => {
    await systemd.sh('systemd-analyze verify --man=no tproxy.service')
    const { stdout } = await systemd.run(
      'systemd-analyze security --offline=true --threshold=30 /etc/systemd/system/tproxy.service',
    )
    expect(stdout).toMatch(/Overall exposure level for tproxy.service: [12]\.\d OK/)
  })
})
