import type { Host } from './host.ts'

/** One end of a link: where, under which name, with which addresses (with prefix lengths). */
export interface End {
  readonly host: Host
  readonly name: string
  readonly addresses: readonly string[]
}

/** Joins two hosts by a virtual Ethernet cable. */
export async function connectHosts(left: End, right: End): Promise<void> {
  const peer = ['peer', 'name', right.name, 'netns', String(right.host.pid)]
  await left.host.must('ip', 'link', 'add', left.name, 'type', 'veth', ...peer)
  await Promise.all([configure(left), configure(right)])
}

/** Gives an interface its addresses and sets it up. */
export async function configure({ host, name, addresses }: End): Promise<void> {
  // Without nodad an IPv6 address is unusable for its first second.
  for (const address of addresses) {
    const options = address.includes(':') ? ['nodad'] : []
    await host.must('ip', 'address', 'add', address, 'dev', name, ...options)
  }
  await host.must('ip', 'link', 'set', name, 'up')
}

/** Adds default routes by `via`, whose family each tells. The lowest metric wins. */
export async function addDefaultRoutes(
  host: Host,
  device: string,
  { via, metric }: { via: readonly string[]; metric: number },
): Promise<void> {
  for (const gateway of via) {
    const family = gateway.includes(':') ? '-6' : '-4'
    const route = ['default', 'via', gateway, 'dev', device, 'metric', String(metric)]
    await host.must('ip', family, 'route', 'add', ...route)
  }
}
