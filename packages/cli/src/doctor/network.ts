import { closeSync, openSync } from 'node:fs'
import { type Inspection, type InterfaceSelection, reason, selectInterfaces } from '@tproxy/core'
import { attempt, type Check, missing, ok, read, warn } from './check.ts'

export function networkChecks(inspection: Inspection, interfaces: InterfaceSelection): Check[] {
  return [
    attempt('interfaces', 'bring one up, or name it with --interface', () =>
      selectInterfaces(interfaces)
        .map(({ name }) => name)
        .join(', '),
    ),
    attempt('routing', 'choose others with --mark, --table or --priority', () => {
      inspection.routing()
      return 'mark, table and priority are free, or ours'
    }),
    ...(['accept_local', 'route_localnet'] as const).map(checkSetting),
    checkReversePath(),
    checkIpv6(),
    attempt('records', 'see the message', () => inspection.records()),
    checkLeftovers(inspection),
  ]
}

function checkSetting(setting: 'accept_local' | 'route_localnet'): Check {
  const path = `/proc/sys/net/ipv4/conf/lo/${setting}`
  const value = read(path)
  const name = `${setting} of lo`
  if (value === '1') return ok(name, '1')
  try {
    // Opened, because access(2) does not count the CAP_NET_ADMIN of whoever is not root.
    closeSync(openSync(path, 'r+'))
    return ok(name, `${value}; set to 1 while tproxy runs`)
  } catch (error) {
    return missing(
      name,
      `${value}, and not writable: ${reason(error)}`,
      `sysctl -w net.ipv4.conf.lo.${setting}=1 (outside of the container)`,
    )
  }
}

function checkReversePath(): Check {
  // The kernel exempts local sources on lo: fib_validate_source in net/ipv4/fib_frontend.c.
  const [all, lo] = ['all', 'lo'].map((name) => read(`/proc/sys/net/ipv4/conf/${name}/rp_filter`))
  return ok('rp_filter', `all ${all}, lo ${lo}; no value is in the way`)
}

function checkIpv6(): Check {
  const off = read('/proc/sys/net/ipv6/conf/lo/disable_ipv6')
  return ok('IPv6', off === '0' ? 'on' : 'off: only IPv4 is intercepted, and there is nothing else')
}

function checkLeftovers(inspection: Inspection): Check {
  const name = 'leftovers'
  try {
    const { living, leftBehind, kept } = inspection.instances()
    const keeps = kept === 0 ? '' : '; connections that --keep left go on (tproxy-run clean resets them)'
    const running = (living.length === 0 ? 'nobody intercepts' : `running: ${living.join(', ')}`) + keeps
    return leftBehind === 0
      ? ok(name, `none; ${running}`)
      : warn(name, `a killed tproxy left ${leftBehind} behind; ${running}`, 'tproxy-run clean')
  } catch (error) {
    return warn(name, reason(error), 'run doctor as root')
  }
}
