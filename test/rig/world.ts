import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Action, FastpathMode } from '@tproxy/core'
import { enclosed, Host, type Program } from './host.ts'

const node = process.execPath
const path = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** The command line, from its sources, as the script tproxy-run starts it. */
export const tproxyRun: readonly [string, ...string[]] = [
  process.execPath,
  '--min-semi-space-size=4',
  '--max-semi-space-size=4',
  '--conditions=@tproxy/source',
  fileURLToPath(new URL('../../packages/cli/src/bin.ts', import.meta.url)),
]

/** For `--plugin`: see there. */
export const dialled: string = path('./dialled.ts')

/** Addresses of the standard world, per family. */
export const addresses = {
  4: {
    client: '198.51.100.2',
    second: '198.51.100.130',
    origin: '203.0.113.10',
    gateway: '198.51.100.1',
    url: '203.0.113.10',
  },
  6: {
    client: '2001:db8:1::2',
    second: '2001:db8:3::2',
    origin: '2001:db8:2::10',
    gateway: '2001:db8:1::1',
    url: '[2001:db8:2::10]',
  },
} as const

/**
 * Two hosts: the client with interfaces wan0 (default route) and wan1, and the internet behind both, where an origin serves
 * on 203.0.113.10 and 2001:db8:2::10 (see origin.ts) and a gateway address may hold upstream proxies.
 */
export class World implements AsyncDisposable {
  readonly client: Host
  readonly internet: Host
  readonly origin: Program
  readonly #stack: AsyncDisposableStack

  /**
   * `congestion`: the control that programs use, if not the machine's. With the default one, whether a connection is spliced does
   * not depend on how long the handshake took on a busy machine (see splice-far.test.ts).
   * `rss`: whether the internet takes what belongs to one connection on one CPU, by interrupts, as network cards see to
   * (receive-side scaling). veth has it taken at once, where it was sent: what is measured is steady then, but while a server's
   * kernel makes a connection's socket of the one that stood for its SYN, another CPU finds neither (inet_ehash_insert() of
   * 6.18), and with a proxy or without, one in a million is reset.
   */
  static async create({ congestion = 'reno', rss = false } = {}): Promise<World> {
    await using stack = new AsyncDisposableStack()
    const client = stack.use(await Host.create('client'))
    const internet = stack.use(await Host.create('internet'))
    if (congestion !== 'machine')
      for (const host of [client, internet])
        await host.sh(`sysctl -qw net.ipv4.tcp_congestion_control=${congestion}`)
    await client.sh(`
      ip link add wan0 type veth peer name eth0 netns ${internet.pid}
      ip link add wan1 type veth peer name eth1 netns ${internet.pid}
      ip addr add 198.51.100.2/25 dev wan0
      ip addr add 198.51.100.130/25 dev wan1
      ip addr add 2001:db8:1::2/64 dev wan0 nodad
      ip addr add 2001:db8:3::2/64 dev wan1 nodad
      ip link set wan0 up
      ip link set wan1 up`)
    await internet.sh(`
      ip addr add 198.51.100.1/25 dev eth0
      ip addr add 198.51.100.129/25 dev eth1
      ip addr add 2001:db8:1::1/64 dev eth0 nodad
      ip addr add 2001:db8:3::1/64 dev eth1 nodad
      ip addr add 203.0.113.10/32 dev lo
      ip addr add 2001:db8:2::10/128 dev lo nodad
      ip link set eth0 up
      ip link set eth1 up
      echo 2 >/proc/sys/net/ipv4/conf/all/rp_filter`)
    if (rss)
      await internet.sh(`
        mount -t sysfs sysfs /mnt
        for queue in /mnt/class/net/eth[01]/queues/rx-0/rps_cpus; do echo 3 >$queue; done`)
    await client.sh(`
      ip route add default via 198.51.100.1
      ip route add default via 198.51.100.129 dev wan1 metric 1000
      ip -6 route add default via 2001:db8:1::1
      ip -6 route add default via 2001:db8:3::1 dev wan1 metric 2000`)
    const origin = stack.use(await startOrigin(internet))
    return new World(client, internet, origin, stack.move())
  }

  private constructor(client: Host, internet: Host, origin: Program, stack: AsyncDisposableStack) {
    this.client = client
    this.internet = internet
    this.origin = origin
    this.#stack = stack
  }

  /** Starts an embedding program (proxy.ts) in the client and waits until it intercepts. */
  async proxy(options: ProxyProgramOptions = {}, host: Host = this.client): Promise<Program> {
    const [command, ...first] = options.aged ? [...aged, node] : [node]
    const program = host.spawn(command as string, [
      ...first,
      '--conditions=@tproxy/source',
      ...(options.accepting ? ['--import', path('./accepting.ts')] : []),
      path('./proxy.ts'),
      JSON.stringify(options),
    ])
    await program.until(
      (p) => p.events.some(({ event }) => event === 'ready'),
      'the proxy to be ready',
      15_000,
    )
    return program
  }

  /** Starts tproxy-run in the client. */
  run(args: readonly string[], options: { env?: NodeJS.ProcessEnv; input?: string } = {}): Program {
    // On an interface the fastpath is attached to all cgroups that it can see.
    const reachesAll = args.includes('--fastpath') && args.includes('-i')
    const [command, ...first] = reachesAll ? ([...enclosed, ...tproxyRun] as const) : tproxyRun
    return this.client.spawn(command, [...first, ...args], options)
  }

  /** Every connection that reached the origin, as `address:port → port`. */
  get reached(): { from: string; fromPort: number; port: number }[] {
    return this.origin.events.filter(({ event }) => event === 'connection')
  }

  close(): Promise<void> {
    return this.#stack.disposeAsync()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** Words that run a program whose clock is behind the kernel's own (time_namespaces(7)). */
const aged = ['unshare', '--time', '--monotonic=-200', 'nsenter', '-T/proc/self/ns/time_for_children']

/** Serves on all addresses of a host; see origin.ts. */
export async function startOrigin(host: Host): Promise<Program> {
  const origin = host.spawn(node, [path('./origin.ts')])
  await origin.until((program) => program.stdout.includes('ready'), 'the origin to be ready')
  return origin
}

/** Options of the embedding program; `plugin` names one of those in proxy.ts. */
export interface ProxyProgramOptions {
  readonly interfaces?: readonly string[] | 'auto' | 'all'
  readonly cgroup?: string
  readonly failClosed?: boolean
  readonly rules?: readonly string[]
  readonly defaultAction?: Action
  /** Of proxy.ts; by default one whose connections are ours: from their own port, nobody comes but who leaks past the proxy. */
  readonly plugin?: string
  readonly carry?: 'splice' | 'relay'
  readonly keepSpliced?: boolean
  /** Says nothing of connections. */
  readonly silent?: boolean
  readonly fastpath?: FastpathMode
  /** As if it had begun to look at sockets long ago. */
  readonly aged?: boolean
  /** With fastpath: see accepting.ts. */
  readonly accepting?: boolean
  readonly timeouts?: Record<string, number>
}

/** What proxy.ts reads on its standard input, a line each. Without rules: their counts. */
export interface RuleCommand {
  readonly rules?: readonly string[]
  readonly default?: Action
  readonly reset?: boolean
  /** Verdicts that the kernel remembers: all, or about one port. */
  readonly forget?: 'all' | number
  /** To be told by an event of the first packet of this destination. */
  readonly trace?: string
  /** To be told by an event how much memory is needed. */
  readonly collect?: boolean
  /** To be told by an event that counts of rules end. */
  readonly counted?: boolean
}

/** What it answers. */
export interface RuleAnswer {
  readonly counts?: readonly (readonly [packets: number, bytes: number])[]
  readonly error?: string
  /** Those that are intercepted. */
  readonly interfaces?: readonly string[]
  /** Counts of the fastpath. */
  readonly fastpath?: Readonly<Record<string, number>>
  /** Connections that a remembered verdict decided. */
  readonly recalled?: number
  readonly remembered?: readonly { readonly port?: number; readonly until: string }[]
}

/** Sends a line to proxy.ts, and waits for the answer. */
export async function tellRules(proxy: Program, command: RuleCommand): Promise<RuleAnswer> {
  const answers = () => proxy.events.filter(({ event }) => event === 'rules')
  const before = answers().length
  proxy.child.stdin?.write(`${JSON.stringify(command)}\n`)
  await proxy.until(() => answers().length > before, 'an answer about the rules')
  return answers()[before] as RuleAnswer
}

export interface Memory {
  readonly rssKb: number
  readonly fds: number
}

/** Resident memory of a process, and how many files it has open. */
export async function memory(host: Host, pid: number): Promise<Memory> {
  const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  const fds = (await host.sh(`ls /proc/${pid}/fd | wc -l`)).trim()
  return { rssKb: Number(rss), fds: Number(fds) }
}
