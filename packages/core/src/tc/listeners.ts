import { lookup } from 'node:dns/promises'
import { readlinkSync } from 'node:fs'
import { readdir, readFile, readlink } from 'node:fs/promises'
import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { addressBytes } from '../endpoint.ts'

/** The addresses behind a host name or address that belong to this host. */
export async function localAddresses(host: string): Promise<string[]> {
  const addresses = isIP(host) ? [host] : (await lookup(host, { all: true })).map(({ address }) => address)
  const own = new Set(
    Object.values(networkInterfaces()).flatMap((list) => list?.map(({ address }) => canonical(address))),
  )
  return addresses.filter((address) => isLoopback(address) || own.has(canonical(address)))
}

const canonical = (address: string) => Buffer.from(addressBytes(address.replace(/%.*$/, ''))).toString('hex')

/** What stands before an IPv4 address. */
const mapped = '00000000000000000000ffff'

function isLoopback(address: string): boolean {
  const bytes = addressBytes(address.replace(/%.*$/, ''))
  return canonical(address).startsWith(mapped)
    ? bytes[12] === 127
    : canonical(address) === '00000000000000000000000000000001'
}

/**
 * Inodes of the sockets of this network namespace that get what is sent to an address and port: those that listen at the address,
 * or at all addresses where there are none, as the kernel chooses (compute_score() of net/ipv4/inet_hashtables.c). Others at the
 * port may be anybody's: next to an IPv4 listener, any user may listen at `::` for IPv6 alone.
 */
export async function listeningSockets(address: string, port: number): Promise<Set<string>> {
  const own = canonical(address)
  // One for all of IPv6 takes IPv4 as well, unless it was told not to, and then it is not there beside one for IPv4.
  const places = own.startsWith(mapped) ? [own, canonical('0.0.0.0'), '0'.repeat(32)] : [own, '0'.repeat(32)]
  const tables = await Promise.all(
    ['tcp', 'tcp6'].map((name) => readFile(`/proc/net/${name}`, 'utf8').catch(() => '')),
  )
  const inodes = new Map(places.map((place) => [place, new Set<string>()]))
  for (const line of tables.flatMap((table) => table.split('\n').slice(1))) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/)
    // 0A is TCP_LISTEN.
    if (state !== '0A' || local === undefined || inode === undefined) continue
    const [hex = '', hexPort = ''] = local.split(':')
    if (Number.parseInt(hexPort, 16) === port) inodes.get(canonicalHex(hex))?.add(inode)
  }
  return [...inodes.values()].find(({ size }) => size > 0) ?? new Set()
}

/** /proc/net/tcp prints 32-bit words in the machine's byte order, which is little-endian wherever we run. */
function canonicalHex(hex: string): string {
  const words = hex.toLowerCase().match(/.{8}/g) ?? []
  const bytes = words.map((word) => (word.match(/../g) ?? []).toReversed().join('')).join('')
  return bytes.length === 8 ? `${mapped}${bytes}` : bytes
}

/** A process that has a socket open, and under which descriptor. */
export interface Holder {
  readonly pid: number
  readonly fd: string
  readonly inode: string
}

/** The processes that have one of these sockets open. Costs one readlink per open file of this host. */
export async function holders(inodes: ReadonlySet<string>): Promise<Holder[]> {
  const names = new Map([...inodes].map((inode) => [`socket:[${inode}]`, inode]))
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const found: Holder[] = []
  for (const pid of pids) {
    const files = await readdir(`/proc/${pid}/fd`).catch(() => [])
    const links = await Promise.all(files.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')))
    for (const [index, fd] of files.entries()) {
      const inode = names.get(links[index] ?? '')
      if (inode !== undefined) found.push({ pid: Number(pid), fd, inode })
    }
  }
  return found
}

/** Whether it still has that socket open. Costs 4 µs (Node 24, one readlink), however many sockets there are. */
export function stillHolds({ pid, fd, inode }: Holder): boolean {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`
  } catch {
    return false
  }
}
