// The demonstration: two hosts made of network namespaces, an origin with HTTP and HTTPS and a SOCKS server on one, and
// curl under tproxy-run on the other.
import { fileURLToPath } from 'node:url'
import { styleText } from 'node:util'
import { stateOf } from '../test/rig/state.ts'
import { setup } from '../test/rig/trial.ts'
import { World } from '../test/rig/world.ts'

const title = (text: string) => console.log(`\n${styleText('bold', text)}`)
const indent = (text: string) => text.trimEnd().replaceAll(/^/gm, '    ')
const failures: string[] = []

console.log(`Two hosts, made of network namespaces; nothing else on this machine is touched:

    client 198.51.100.2 ───── 198.51.100.1 the internet: SOCKS5 server on 198.51.100.1:1080,
           2001:db8:1::2      origin with HTTP and HTTPS on 203.0.113.10 and 2001:db8:2::10

The origin answers with the address it sees: the SOCKS server's, which is on the same host, or the client's.`)

// What the first start on a kernel finds out is kept, in /run/tproxy: that is no trace of these commands.
await setup()
await using world = await World.create()
const { client, internet } = world
await using socks = internet.spawn(process.execPath, [
  fileURLToPath(new URL('demo-socks.ts', import.meta.url)),
])
await socks.until(({ stdout }) => stdout.includes('ready'), 'the SOCKS server to be ready')
const before = JSON.stringify(await stateOf(client))

/** Runs a command under tproxy-run, and shows what each party saw of it. */
async function show(options: string[], command: string[], expected: RegExp): Promise<void> {
  const quoted = [...options, '--', ...command].map((word) => (/[\s']/.test(word) ? `'${word}'` : word))
  title(`$ tproxy-run ${quoted.join(' ')}`)
  const [asked, reached] = [socks.stdout.length, world.reached.length]
  const { stdout, stderr, code } = await world.run([...options, '--', ...command]).exited
  console.log(indent(stdout))
  console.log(styleText('cyan', indent(stderr)))
  const said = (who: string, text: string) => console.log(styleText('dim', `    ${who.padEnd(13)} ${text}`))
  for (const line of socks.stdout.slice(asked).trim().split('\n').filter(Boolean)) said('socks server:', line)
  for (const { from, port } of world.reached.slice(reached))
    said('origin:', `a connection from ${from} to port ${port}`)
  if (code !== 0 || !expected.test(stdout)) failures.push(`tproxy-run ${quoted.join(' ')}: exit ${code}`)
}

const plugin = ['-v', '--plugin', 'socks=socks5://198.51.100.1:1080']
await show(
  plugin,
  ['curl', '-sk', 'https://203.0.113.10/secret'],
  /^GET \/secret from (?!.*198\.51\.100\.2)/m,
)
await show(plugin, ['curl', '-s', 'http://[2001:db8:2::10]/hello'], /^GET \/hello from (?!2001:db8:1::2)/m)
await show(
  [...plugin, '--rule', 'direct to 203.0.113.0/24', '--rule', 'drop tcp dport 25'],
  ['curl', '-s', 'http://203.0.113.10/direct'],
  /^GET \/direct from \S*198\.51\.100\.2$/m,
)
await show(
  ['-v'],
  ['sh', '-c', 'curl -s http://203.0.113.10/a & curl -s http://203.0.113.10/b; wait'],
  /\/[ab] from/,
)

title('Afterwards')
const same = JSON.stringify(await stateOf(client)) === before
console.log(
  `    rules, routes, interfaces, sysctls and cgroups of the client are ${same ? 'as they were before' : 'NOT as before'}`,
)
if (!same) failures.push('the state of the client changed')

if (failures.length > 0) {
  console.error(`\nThe demonstration failed:\n${indent(failures.join('\n'))}`)
  process.exitCode = 1
}
