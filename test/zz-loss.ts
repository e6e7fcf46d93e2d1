import { World, addresses } from './rig/world.ts'
import { dial } from './rig/client.ts'
import { firewall } from './rig/firewall.ts'
import { setTimeout as sleep } from 'node:timers/promises'
const fam = Number(process.argv[2] ?? 4) as 4|6
const carry = (process.argv[3] ?? 'splice')
await using world = await World.create()
await using proxy = carry === 'none' ? undefined as any : await world.proxy({ interfaces: ['wan0'], carry: carry as any })
const { origin } = addresses[fam]
let worst = 0
for (let round = 0; round < 8; round++) {
  await using _o = await firewall(world.internet, 'prerouting', `numgen random mod 100 < 5 drop`)
  await using _i = await firewall(world.client, 'output', `numgen random mod 100 < 5 drop`)
  const dump = world.client.spawn('timeout', ['12', 'tcpdump', '-s', '120', '-ni', 'wan0', '-ttt', '-w', `/tmp/cap${round}.pcap`, 'tcp'])
  await sleep(300)
  const t0 = performance.now()
  let done = false
  const all = Promise.all(Array.from({ length: 4 }, () => dial(world.client, [origin, 7], { echo: 2_000_000, timeout: 20_000 }).then(r => ({ ...r, ms: performance.now() - t0 })))).then(r => { done = true; return r })
  for (let i = 0; i < 80 && !done; i++) await sleep(100)
  if (!done) {
    console.log('STUCK round', round)
    console.log(await world.client.sh('ss -tnoie'))
    console.log(await world.client.sh('PATH=$PATH:/usr/sbin python3 /tmp/dumppairs.py'))
    console.log(await world.internet.sh('ss -tnoie'))
    await sleep(3000)
    console.log(await world.client.sh('ss -tnoie'))
    console.log(await world.client.sh('PATH=$PATH:/usr/sbin python3 /tmp/dumppairs.py'))
    console.log(await world.internet.sh('ss -tnoie'))
  }
  dump.kill('SIGINT')
  const rs = await all
  console.log(round, rs.map(r => `${r.end} ${r.received} ${Math.round(r.ms)}`).join(' | '))
}
console.log(proxy?.events.filter((e: any) => e.event === 'end').map((e: any) => [e.how, e.carried, e.notSpliced, e.bytes.sent, e.bytes.received].join(' ')).join('\n'))
