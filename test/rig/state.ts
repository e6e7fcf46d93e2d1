import { readdirSync } from 'node:fs'
import type { Host } from './host.ts'

/** Everything about a host that we may change: to be equal before and after. */
export async function stateOf(host: Host): Promise<Record<string, string>> {
  const text = await host.sh(`
    export PATH=$PATH:/usr/sbin:/sbin
    for what in 'ip rule' 'ip -6 rule' 'ip route show table all' 'ip -6 route show table all' 'ip -o link' \\
      'nft list ruleset' 'ls -AR /run' 'cat /proc/sys/net/ipv4/conf/lo/accept_local' 'cat /proc/sys/net/ipv4/conf/lo/route_localnet' \\
      'cat /proc/sys/net/ipv4/conf/all/accept_local' 'cat /proc/sys/net/ipv4/conf/all/rp_filter' 'tc qdisc' 'bpftool net'
    do echo "== $what"; $what 2>&1 | grep -v '^fe80::/64\\|^local fe80\\|^multicast\\|^anycast' || true; done`)
  const sections = text.split(/^== /m).slice(1)
  return {
    ...Object.fromEntries(
      sections.map((section) => [section.split('\n')[0] ?? '', section.slice(section.indexOf('\n') + 1)]),
    ),
    // Route lifetimes and the like never matter; cgroups below the host's do.
    cgroups: readdirSync(host.cgroup, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name)
      .join(' '),
  }
}

/** Names of BPF programs and maps of ours that are loaded, on the whole machine. */
export async function loadedPrograms(host: Host): Promise<string[]> {
  const text = await host.sh('PATH=$PATH:/usr/sbin bpftool -j prog show')
  const programs = JSON.parse(text) as { id: number; name?: string }[]
  return programs
    .filter(({ name }) => /^(wan_egress|lo_ingress|lo_egress|listener_looku|connect_o)/.test(name ?? ''))
    .map(({ name, id }) => `${name} ${id}`)
}
