// Those who are compared, each with the same list in a host of its own, all at once: so rounds can alternate between them
// without anything to set up in between.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Host } from '../../test/rig/host.ts'
import { aimedList } from './aimed.ts'
import { asIptables, asNft, type PlainRule } from './lists.ts'
import { compiled } from './report.ts'

export interface Side {
  readonly name: string
  readonly client: Host
  /** The other end of the client's wan0. Takes every TCP connection to 203.0.113.0/24, and drops datagrams. */
  readonly internet: Host
}

async function feed(host: Host, command: string, args: readonly string[], input: string): Promise<void> {
  const { code, stderr } = await host.run(command, args, { input })
  if (code !== 0) throw new Error(`${command}: ${stderr}`)
}

const nftTable = (family: string, hook: string, rules: readonly string[]) =>
  [
    `table ${family} bench {`,
    'chain bench {',
    `type filter hook ${hook} priority 0;`,
    ...rules,
    '}',
    '}\n',
  ].join('\n')

async function start(host: Host, name: string, ...args: string[]): Promise<void> {
  const path = fileURLToPath(new URL(name, import.meta.url))
  const program = host.spawn(process.execPath, ['--conditions=@tproxy/source', path, ...args])
  await program.until(({ stdout }) => stdout.includes('ready'), `${name} to be ready`, 30_000)
}

const restore = ['iptables-legacy', 'iptables-nft'].find((name) => existsSync(`/usr/sbin/${name}-restore`))

const filters: Readonly<Record<string, (host: Host, rules: readonly PlainRule[]) => Promise<void>>> = {
  none: async () => {},
  // Shows how much two hosts differ by themselves.
  'none again': async () => {},
  // What interception costs that decides nothing: a program at the same hook, and a routing rule like ours, which makes
  // the kernel look up all routes in the long way.
  empty: async (host) => {
    compiled('empty.bpf.c')
    await host.sh('ip rule add priority 100 fwmark 0x74700000/0xffffff80 lookup 99')
    await start(host, 'attach-empty.ts')
  },
  ours: (host, rules) => start(host, 'intercept.ts', `${rules.length}`),
  nftables: (host, rules) =>
    feed(host, '/usr/sbin/nft', ['-f', '-'], nftTable('inet', 'output', rules.map(asNft))),
  ...(restore !== undefined && {
    [restore]: (host, rules) =>
      feed(
        host,
        `/usr/sbin/${restore}-restore`,
        [],
        `*filter\n${rules.map(asIptables).join('\n')}\nCOMMIT\n`,
      ),
  }),
}
if (restore === undefined) console.log('There is no iptables here: left out.')

/** All sides, or those of these names, with a list of so many rules in force, until the stack ends. */
export async function makeSides(
  stack: AsyncDisposableStack,
  count: number,
  names: readonly string[] = Object.keys(filters),
): Promise<Side[]> {
  const rules = aimedList(count)
  const sides: Side[] = []
  for (const name of names) {
    const filter = filters[name]
    if (filter === undefined) throw new Error(`there is no side ${name}`)
    const client = stack.use(await Host.create('client'))
    const internet = stack.use(await Host.create('internet'))
    await client.sh(`
      ip link add wan0 type veth peer name eth0 netns ${internet.pid}
      ip addr add 198.51.100.2/24 dev wan0
      ip link set wan0 up`)
    await internet.sh(`
      ip addr add 198.51.100.1/24 dev eth0
      ip route add local 203.0.113.0/24 dev lo
      ip link set eth0 up`)
    await client.sh('ip route add default via 198.51.100.1')
    await feed(
      internet,
      '/usr/sbin/nft',
      ['-f', '-'],
      nftTable('netdev', 'ingress device eth0', ['meta l4proto udp drop']),
    )
    await filter(client, rules)
    sides.push({ name, client, internet })
  }
  return sides
}
