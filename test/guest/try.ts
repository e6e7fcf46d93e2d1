// In a guest: whether this kernel takes our programs, and carries connections as it should, over IPv4 and IPv6, left alone, translated, and
// through a SOCKS server on this host; and whether it ends what is translated when the proxy is killed. Slow machines have the time they need.
import { release } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { dial, holdDial } from '../rig/client.ts'
import { microsocks } from '../rig/servers.ts'
import { addresses, dialled, World } from '../rig/world.ts'

const size = 3_000_000
await using world = await World.create()
await using _v4 = await microsocks(world.client, '127.0.0.1', 1080)
await using _v6 = await microsocks(world.client, '::1', 1081)
let wrong = 0
for (const [name, families, ...options] of [
  ['direct', [4, 6]],
  ['by a connection of ours', [4, 6], '-p', dialled],
  ['by 127.0.0.1', [4], '-p', 'socks=socks5://127.0.0.1:1080'],
  ['by ::1', [6], '-p', 'socks=socks5://[::1]:1081'],
] as const) {
  await using proxy = world.run(['-i', 'wan0', '--json', ...options], { input: '' })
  await proxy.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line', 200_000)
  for (const [index, family] of families.entries()) {
    const { end, received, equal } = await dial(world.client, [addresses[family].origin, 7], {
      // microsocks stands still when both ways are full.
      echo: name.includes(':') || name.includes('127') ? 20_000 : size,
      timeout: 60_000,
    })
    const ended = () => proxy.events.filter(({ event }) => event === 'session-end')
    for (let waited = 0; ended().length <= index && waited < 100; waited++) await sleep(100)
    const { carried, notSpliced, bytes } = ended().at(-1) ?? {}
    const right = equal && end === 'closed' && carried === 'splice' && bytes.received === received
    if (!right) wrong++
    const how = [carried, notSpliced].filter(Boolean).join(': ')
    console.log(
      `${right ? 'ok' : 'WRONG'}  ${release()}  ${name}, IPv${family}: ${received} bytes, ${end}, ${how}`,
    )
  }
  const { code, stderr } = await proxy.stop()
  if (code !== 0 || stderr !== '') {
    console.log(`WRONG  it ends with ${code}: ${stderr}`)
    wrong++
  }
}
{
  await using proxy = world.run(['-i', 'wan0', '--json', '-p', dialled], { input: '' })
  await proxy.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line', 200_000)
  const target = [addresses[4].origin, 7] as const
  const held = await holdDial(world.client, target, { bind: 30_001, read: 1 })
  // Its program is gone when the proxy is killed, and what it sent was not acknowledged.
  const left = await holdDial(world.client, target, { bind: 30_002, send: 'x'.repeat(1000), timeout: 5_000 })
  await sleep(1_000)
  await world.internet.sh('ip link set eth0 down')
  await left.release()
  proxy.kill('SIGKILL')
  const { end } = await held.release()
  await sleep(1_000)
  const sockets = (await world.client.sh("ss -Htan 'sport = :30001 or sport = :30002'")).trim()
  const right = end === 'ECONNABORTED' && sockets === ''
  if (!right) wrong++
  console.log(`${right ? 'ok' : 'WRONG'}  ${release()}  killed: ${end}, ${sockets || 'no socket is left'}`)
}
process.exitCode = wrong === 0 ? 0 : 1
