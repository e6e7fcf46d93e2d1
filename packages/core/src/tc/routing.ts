import { writeFileSync } from 'node:fs'
import { Mark } from '@tproxy/bpf'
import { reason, TproxyError } from '../errors.ts'
import { ip, ipJson, readSystemFile } from './system.ts'

/** What marked packets need to be delivered on this host; shared by all instances of a network namespace. */
export interface RoutingOptions {
  /** Upper 16 bits of our marks, such as 0x74700000; the lower 16 must be 0. */
  readonly mark?: number
  /** Number of a routing table of our own. */
  readonly table?: number
  /** Priority of the routing rule: before every rule that could catch marked packets. */
  readonly priority?: number
}

export type Routing = Required<RoutingOptions>

/** "tp". No bits in common with what Kubernetes, Cilium, Tailscale, Docker and wg-quick use. */
const defaults: Routing = { mark: 0x7470_0000, table: 0x7470, priority: 100 }

/** Fills in what is missing. Throws `E_OPTION` for numbers that cannot be. */
export function routingOptions(options: RoutingOptions = {}): Routing {
  const routing = { ...defaults, ...options }
  const { mark, table, priority } = routing
  if (mark <= 0 || mark > Mark.base || (mark & 0xffff) !== 0 || !Number.isInteger(mark))
    throw new TproxyError('E_OPTION', `routing mark 0x${mark.toString(16)} is not usable`, {
      hint: 'give a number whose lower 16 bits are 0, such as 0x74700000',
    })
  if (!Number.isInteger(table) || table < 1 || table > 0xffff_fffe || (table >= 253 && table <= 255))
    throw new TproxyError('E_OPTION', `routing table ${table} is not usable`, {
      hint: 'not 0, nor 253 to 255, which are in use',
    })
  if (!Number.isInteger(priority) || priority < 1 || priority > 32_765)
    throw new TproxyError('E_OPTION', `routing rule priority ${priority} is not usable`, {
      hint: '1 to 32765',
    })
  return routing
}

interface RuleEntry {
  priority: number
  fwmark?: string
  fwmask?: string
  table?: string
}

const hex = (value: number) => `0x${(value >>> 0).toString(16)}`
const steeredMask = (Mark.base | Mark.reply) >>> 0
/**
 * What lo has to take in: packets from our own addresses (without accept_local, steered ones are martians), and for an
 * upstream at 127.0.0.1 spliced ones with its addresses, which unlike its own bring no route along (route_localnet).
 */
export const sysctls = ['accept_local', 'route_localnet'] as const
const sysctl = (name: string) => `/proc/sys/net/ipv4/conf/lo/${name}`

/** The families of IP that are in use here. */
export function families(): (4 | 6)[] {
  const without = readSystemFile('/proc/sys/net/ipv6/conf/lo/disable_ipv6')
  return without === '0' ? [4, 6] : [4]
}

function isOurs(rule: RuleEntry, { mark, table, priority }: Routing): boolean {
  return (
    rule.priority === priority &&
    Number(rule.fwmark) === mark &&
    Number(rule.fwmask) === steeredMask &&
    rule.table === String(table)
  )
}

/** Routing rules by family of IP. */
export type RoutingRules = ReadonlyMap<4 | 6, readonly RuleEntry[]>

/** Those that there are, of all families in use. */
export function routingRules(): RoutingRules {
  return new Map(families().map((family) => [family, ipJson<RuleEntry>(`-${family}`, 'rule', 'show')]))
}

/** Throws `E_CLASH` when somebody else uses our mark, table or priority. */
export function checkClashes(routing: Routing, present: RoutingRules): void {
  const { mark, table, priority } = routing
  const clash = (what: string, option: string) => {
    throw new TproxyError('E_CLASH', what, { hint: `choose another with ${option}` })
  }
  for (const [family, all] of present) {
    const rules = all.filter((rule) => !isOurs(rule, routing))
    for (const rule of rules) {
      if (rule.priority === priority)
        clash(`routing rule priority ${priority} (IPv${family}) is in use`, '--priority')
      if (rule.table === String(table)) clash(`routing table ${table} (IPv${family}) is in use`, '--table')
      const common = Number(rule.fwmask ?? 0xffff_ffff) & Mark.base
      if (rule.fwmark !== undefined && common !== 0 && ((Number(rule.fwmark) ^ mark) & common) === 0)
        clash(
          `a routing rule (IPv${family}, priority ${rule.priority}) matches our mark ${hex(mark)}`,
          '--mark',
        )
    }
  }
}

/** Undoes {@link setUpRouting}: what was changed, in the form it is remembered on disk. */
export interface RoutingChanges {
  readonly routing: Routing
  /** What settings of lo were, those that were changed. */
  readonly settings: Readonly<Partial<Record<(typeof sysctls)[number], string>>>
}

/** What {@link setUpRouting} will change, to be remembered before it does. */
export function planRouting(routing: Routing): RoutingChanges {
  const before = sysctls.map((name) => [name, readSystemFile(sysctl(name))] as const)
  const changed = before.filter(([, value]) => value !== undefined && value !== '1')
  return { routing, settings: Object.fromEntries(changed) }
}

/** Sets the rule, where it is not among those present, and the local route for marked packets, and lets lo take them. */
export function setUpRouting({ routing, settings }: RoutingChanges, present: RoutingRules): void {
  const { mark, table, priority } = routing
  for (const [family, rules] of present) {
    const any = family === 4 ? '0.0.0.0/0' : '::/0'
    ip(
      [`-${family}`, '-batch', '-'],
      [
        `route replace local ${any} dev lo table ${table}`,
        ...(rules.some((rule) => isOurs(rule, routing))
          ? []
          : [`rule add priority ${priority} fwmark ${hex(mark)}/${hex(steeredMask)} lookup ${table}`]),
        '',
      ].join('\n'),
    )
  }
  for (const name of Object.keys(settings))
    try {
      writeFileSync(sysctl(name), '1')
    } catch (cause) {
      throw new TproxyError('E_SYSTEM', `set net.ipv4.conf.lo.${name} to 1: ${reason(cause)}`, {
        hint: 'in a container, mount /proc/sys writable or set it from outside',
        cause,
      })
    }
}

/** Whether rule and route of {@link setUpRouting} are there: others can remove them. */
export function routingStands(routing: Routing): boolean {
  return families().every((family) => stands(family, routing))
}

function stands(family: 4 | 6, routing: Routing): boolean {
  if (!ipJson<RuleEntry>(`-${family}`, 'rule', 'show').some((rule) => isOurs(rule, routing))) return false
  try {
    return (
      ipJson<unknown>(`-${family}`, 'route', 'show', 'table', `${routing.table}`, 'type', 'local').length > 0
    )
  } catch {
    // The kernel knows no table without routes.
    return false
  }
}

/** Restores what {@link setUpRouting} changed. What is gone already is no error. */
export function tearDownRouting({ routing, settings }: RoutingChanges): void {
  const { mark, table, priority } = routing
  for (const family of [4, 6] as const)
    try {
      ip(
        [`-${family}`, '-force', '-batch', '-'],
        `rule del priority ${priority} fwmark ${hex(mark)}/${hex(steeredMask)} lookup ${table}
route del local default dev lo table ${table}
`,
      )
    } catch {
      // Somebody removed one of them, or IPv6 is off.
    }
  for (const [name, before] of Object.entries(settings))
    if (readSystemFile(sysctl(name)) === '1') writeFileSync(sysctl(name), before)
}
