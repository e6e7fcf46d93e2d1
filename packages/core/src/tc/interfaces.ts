import ipaddr from 'ipaddr.js'
import { TproxyError } from '../errors.ts'
import { ipJson } from './system.ts'

/** A network interface that can be intercepted. */
export interface Interface {
  readonly name: string
  readonly ifindex: number
  readonly mac: Uint8Array
  /** Whether packets have an Ethernet header. */
  readonly hasMac: boolean
  /** Of the largest packet, in bytes. */
  readonly mtu: number
}

/** `auto`: those with a default route. `all`: every interface that a route leads out of. Or by name. */
export type InterfaceSelection = readonly string[] | 'auto' | 'all'

interface Link {
  ifindex: number
  ifname: string
  link_type: string
  mtu: number
  address?: string
}

interface Route {
  dst: string
  dev?: string
  type?: string
  gateway?: string
  metric?: number
  nexthops?: { dev?: string }[]
}

/** Link types whose packets begin with the IP header at the egress hook: tun and wireguard, ppp, and plain tunnels. */
const withoutMac = new Set(['none', 'ppp', 'rawip', 'ipip', 'sit', 'tunnel6'])

/** Those of the interfaces meant that are there now and can be carried. */
export function presentInterfaces(selection: InterfaceSelection): Interface[] {
  const links = ipJson<Link>('link', 'show')
  const names = namesOf(selection)
  return links
    .filter((link) => names.has(link.ifname) && isUsable(link))
    .map((link) => toInterface(link.ifname, links))
}

function namesOf(selection: InterfaceSelection): Set<string | undefined> {
  if (selection !== 'auto' && selection !== 'all') return new Set(selection)
  const routes = [4, 6].flatMap((family) => routesOf(family, selection))
  return new Set(routes.flatMap((route) => [route.dev, ...(route.nexthops ?? []).map((hop) => hop.dev)]))
}

/** An interface of any kind; undefined when there is none of that name. */
export function findInterface(name: string): Interface | undefined {
  const link = ipJson<Link>('link', 'show').find(({ ifname }) => ifname === name)
  if (link === undefined) return undefined
  const hasMac = link.link_type === 'ether' || link.link_type === 'loopback'
  return describe(name, link, hasMac)
}

/** The names that all interfaces have now, by index. */
export function interfaceNames(): ReadonlyMap<number, string> {
  return new Map(ipJson<Link>('link', 'show').map(({ ifindex, ifname }) => [ifindex, ifname]))
}

/** Next hop of an interface's IPv6 default route, the preferred one if there are several. */
export function defaultGateway(name: string): Uint8Array | undefined {
  const routes = ipJson<Route>('-6', 'route', 'show', 'default', 'dev', name, 'table', 'all')
  const [best] = routes
    .filter(({ gateway }) => gateway !== undefined)
    .toSorted((a, b) => (a.metric ?? 0) - (b.metric ?? 0))
  return best?.gateway === undefined ? undefined : Uint8Array.from(ipaddr.parse(best.gateway).toByteArray())
}

/** The interfaces that are meant. Throws `E_INTERFACE` for one that is missing or of a kind we cannot carry. */
export function selectInterfaces(selection: InterfaceSelection): Interface[] {
  if (selection !== 'auto' && selection !== 'all') {
    if (selection.length === 0)
      throw new TproxyError('E_OPTION', 'no interface is named', { hint: 'name some, or use auto' })
    const links = ipJson<Link>('link', 'show')
    return [...new Set(selection)].map((name) => toInterface(name, links))
  }
  const usable = presentInterfaces(selection)
  if (usable.length === 0)
    throw new TproxyError(
      'E_INTERFACE',
      selection === 'auto' ? 'no interface has a default route' : 'no route leads out of this host',
      { hint: 'name the interface, such as --interface eth0' },
    )
  return usable
}

function routesOf(family: number, selection: 'auto' | 'all'): Route[] {
  // A router's full table is long; who wants default routes asks for them only.
  const which = selection === 'auto' ? ['default', 'table', 'all'] : ['table', 'all']
  const routes = ipJson<Route>(`-${family}`, 'route', 'show', ...which).filter(
    ({ type }) => type === undefined || type === 'unicast',
  )
  // fe80::/64 and ff00::/8 are on every interface; ours is not what link-local addresses are for.
  return routes.filter(({ dst }) =>
    selection === 'auto' ? dst === 'default' : !dst.startsWith('fe80:') && !dst.startsWith('ff00:'),
  )
}

function isUsable(link: Link): boolean {
  return link.link_type === 'ether' || withoutMac.has(link.link_type)
}

function toInterface(name: string, links: readonly Link[]): Interface {
  const link = links.find(({ ifname }) => ifname === name)
  if (link === undefined)
    throw new TproxyError('E_INTERFACE', `there is no interface ${name}`, {
      hint: `there are ${links
        .filter(({ link_type }) => link_type !== 'loopback')
        .map(({ ifname }) => ifname)
        .join(', ')}`,
    })
  if (link.link_type === 'loopback')
    throw new TproxyError('E_INTERFACE', `${name} is the loopback interface`, {
      hint: 'local connections are not intercepted; name the interface that leads outside',
    })
  if (!isUsable(link))
    throw new TproxyError('E_INTERFACE', `${name} is of type ${link.link_type}, which is not supported`, {
      hint: 'Ethernet-like interfaces, tun, wireguard and ppp are',
    })
  const hasMac = link.link_type === 'ether'
  return describe(name, link, hasMac)
}

function describe(name: string, { ifindex, mtu, address = '' }: Link, hasMac: boolean): Interface {
  const mac = hasMac ? Buffer.from(address.replaceAll(':', ''), 'hex') : new Uint8Array(6)
  return { name, ifindex, mtu, mac, hasMac }
}
