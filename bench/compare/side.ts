import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import type { Host, Program } from '../../test/rig/host.ts'
import type { World } from '../../test/rig/world.ts'

/** Where the bytes go: to the origin, to it by an upstream, or past a proxy that leaves them alone. */
export const routes = ['origin', 'alone', 'socks', 'http'] as const
export type Route = (typeof routes)[number]

/** Of all worlds: see World. The upstreams listen at ports 1080 and 3128. */
export const [origin, port, upstream] = ['203.0.113.10', 9000, '198.51.100.1']

/** One way to carry the same traffic. The first side of a route is what the others are compared with. */
export interface Side {
  readonly name: string
  readonly route: Route
  /** What Debian calls it; where that is not installed, the side is skipped. */
  readonly apt?: string
  /** One sentence for the report: how it is set up. */
  readonly setup: string
  /** Leads the client's connections to it. */
  readonly steer?: (world: World) => Promise<void>
  /** Starts it in the client, and resolves when it can be used. Without: no process carries. */
  readonly start?: (world: World, stack: AsyncDisposableStack) => Promise<Program>
  /** Of the process, for each connection that is open: it can be asked to hold as many as it may have. */
  readonly descriptors?: number
  /** Given to the traffic (ends.c): asks the upstream by itself. */
  readonly asks?: 'socks' | 'http'
  /** Throws where it does not work as its name says: once, before anything is measured. */
  readonly check?: (ready: Ready) => Promise<void>
  /** Words that run the traffic. */
  readonly wrap?: (stack: AsyncDisposableStack) => readonly string[]
}

/** A side in a world of its own, ready. */
export interface Ready {
  readonly side: Side
  readonly world: World
  readonly wrap: readonly string[]
  /** Of the proxy, where there is one. */
  readonly pid?: number
}

/** Where redirected connections arrive. */
export const proxyPort = 12_345
/** The group that peers run as: their own connections are not redirected to them again. */
const group = 4242

/** On one CPU, the other than that of the traffic. */
export const pinned: readonly string[] = ['-c', '1']

/** A directory with one file, for as long as the stack. Returns the file's path. */
export function file(stack: AsyncDisposableStack, name: string, text: string): string {
  const directory = mkdtempSync(`${tmpdir()}/bench-`)
  stack.defer(() => rmSync(directory, { recursive: true }))
  writeFileSync(`${directory}/${name}`, text)
  return `${directory}/${name}`
}

/** Runs a peer, until it listens. */
export async function startPeer(world: World, words: readonly string[]): Promise<Program> {
  const own = ['setpriv', '--regid', `${group}`, '--clear-groups', ...words]
  const program = world.client.spawn('taskset', [...pinned, ...own])
  // Local address, remote address, state: LISTEN is 0A.
  const listens = new RegExp(`:${proxyPort.toString(16).toUpperCase()} [0-9A-F:]+ 0A `)
  const listening = () =>
    ['tcp', 'tcp6'].some((family) =>
      listens.test(readFileSync(`/proc/${world.client.pid}/net/${family}`, 'utf8')),
    )
  await program.until(listening, `${words[0]} listening`, 15_000)
  return program
}

async function feed(host: Host, ruleset: string): Promise<void> {
  const { code, stderr } = await host.run('/usr/sbin/nft', ['-f', '-'], { input: ruleset })
  if (code !== 0) throw new Error(`nft: ${stderr}`)
}

/** Programs' connections to the origin, by NAT. */
export const redirect = (world: World): Promise<void> =>
  feed(
    world.client,
    `table ip bench {
      chain output {
        type nat hook output priority -100;
        meta skgid != ${group} ip daddr 203.0.113.0/24 meta l4proto tcp redirect to :${proxyPort}
      }
    }`,
  )

const routeMarked =
  'ip rule add fwmark 1 lookup 100; ip route add local default dev lo table 100; echo 1 >/proc/sys/net/ipv4/conf/lo/accept_local'

/** The same by TPROXY: the packets of this host's programs go over lo first, for TPROXY takes only what arrives. */
export async function nftablesTproxy(world: World): Promise<void> {
  await world.client.sh(routeMarked)
  await feed(
    world.client,
    `table ip bench {
      chain output {
        type route hook output priority -150;
        meta skgid != ${group} ip daddr 203.0.113.0/24 meta l4proto tcp meta mark set 1
      }
      chain prerouting {
        type filter hook prerouting priority -150;
        meta mark 1 meta l4proto tcp tproxy to 127.0.0.1:${proxyPort} accept
      }
    }`,
  )
}

export async function iptablesTproxy(world: World): Promise<void> {
  const match = '-p tcp -d 203.0.113.0/24'
  await world.client.sh(`PATH=$PATH:/usr/sbin; ${routeMarked}
    iptables-legacy -t mangle -A OUTPUT ${match} -m owner ! --gid-owner ${group} -j MARK --set-mark 1
    iptables-legacy -t mangle -A PREROUTING -m mark --mark 1 ${match} -j TPROXY --on-ip 127.0.0.1 --on-port ${proxyPort}`)
}
