import { readFileSync, statSync } from 'node:fs'
import type { Server } from 'node:net'
import {
  Action,
  Exemption,
  type Flow,
  Limit,
  LoadError,
  NativeError,
  replyMark,
  Steering,
  transparentListener,
} from '@tproxy/bpf'
import { Subject } from 'rxjs'
import { reason, TproxyError } from '../errors.ts'
import type { Timeouts } from '../options.ts'
import { compileRules, type Rule } from '../rules.ts'
import type { Accepted, Transport } from '../transport.ts'
import { listenOn } from './acceptor.ts'
import { CgroupPaths } from './cgroup.ts'
import { type Device, Devices } from './devices.ts'
import { UpstreamExemption } from './exemption.ts'
import { follow } from './follow.ts'
import { Guard } from './guard.ts'
import { enter } from './instances.ts'
import { type InterfaceSelection, selectInterfaces } from './interfaces.ts'
import { families, type RoutingOptions, routingOptions } from './routing.ts'

/** What to intercept. */
export interface InterceptOptions {
  /**
   * Interfaces that connections leave by. Default: `auto`, those with a default route. At most 64. Those that come later,
   * or come back, are added within a second.
   */
  readonly interfaces?: InterfaceSelection
  /**
   * Absolute path of a cgroup v2 directory: only connections of programs in it, and below it, are intercepted. Without it,
   * those of all local programs are, except this process and its descendants.
   */
  readonly cgroup?: string
  /** With `cgroup`: should this process die, everything in the cgroup is killed before it could connect directly. */
  readonly failClosed?: boolean
  /** Asked in order, by the kernel, for each new connection; what matches none is proxied. */
  readonly rules?: readonly (Rule | string)[]
  readonly timeouts?: Timeouts
  readonly routing?: RoutingOptions
}

/** The kernel gives lo of every network namespace this index (LOOPBACK_IFINDEX, include/net/flow.h). */
const lo = 1

/** Descriptors for everything that is no connection: plugins, files, programs and maps. */
const reservedFds = 256

/**
 * Interception at the traffic-control hooks, with everything it needs: listeners, programs, routing. Throws `TproxyError`
 * with nothing left behind. Linux 6.6, CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON.
 */
export async function openTransport(options: InterceptOptions): Promise<Transport> {
  const routing = routingOptions(options.routing)
  const rules = compileRules(options.rules ?? [], Limit.rules)
  if (options.failClosed === true && options.cgroup === undefined)
    throw new TproxyError('E_OPTION', 'failClosed without cgroup', {
      hint: 'name the cgroup that ends with us',
    })
  const selection = options.interfaces ?? 'auto'
  const found = selectInterfaces(selection)
  if (found.length > Limit.devices)
    throw new TproxyError('E_OPTION', `${found.length} interfaces`, { hint: `at most ${Limit.devices}` })

  await using undo = new AsyncDisposableStack()
  const accepted = new Subject<Accepted>()
  const warnings = new Subject<string>()
  const scope = options.cgroup
  const instance = await enter(routing, {
    interfaces: scope === undefined ? found.map(({ name }) => name) : [],
    ...(scope !== undefined && { cgroup: scope }),
  })
  undo.defer(() => instance.close())

  const mark = (routing.mark | (instance.number << 8)) >>> 0
  const steering = undo.use(load(mark, scope !== undefined))
  if (scope !== undefined) steering.setScope(scope)
  steering.exempt(process.pid, Exemption.process | (scope === undefined ? Exemption.descendants : 0))
  steering.setRules(
    rules.map(({ address, mask, portLow, portHigh, action, number }) => ({
      address,
      mask,
      portLow,
      portHigh,
      action: Action[action],
      number,
    })),
  )

  const backlog = Number(readFileSync('/proc/sys/net/core/somaxconn', 'utf8'))
  const describe = describer()
  const budget = { limit: connectionLimit(), open: 0 }
  const listen = (device: Device): Promise<Server[]> =>
    Promise.all(
      families().map(async (family) => {
        const fd = transparentListener({ family, mark: replyMark(mark, device.slot), backlog })
        const server = await listenOn({
          device,
          fd,
          backlog,
          budget,
          takeFlow: (key) => steering.takeFlow(key),
          describe,
          accepted: (connection) => accepted.next(connection),
          warn: (message) => warnings.next(message),
        })
        steering.setListener(device.slot, family, fd)
        return server
      }),
    )

  const exemption = new UpstreamExemption(steering)
  try {
    // The way back first: no packet is taken off its way before the answer can return.
    steering.attachReturnPath(lo)
    const devices = undo.adopt(new Devices(steering, listen, scope !== undefined), (it) => it.close())
    await devices.update(found)
    const guard = undo.use(new Guard(options.failClosed === true ? scope : undefined))
    guard.hold(steering.links)
    undo.use(
      follow({
        selection,
        devices,
        attached: () => guard.hold(steering.links),
        warn: (message) => warnings.next(message),
      }),
    )
  } catch (cause) {
    throw explain(cause)
  }

  const acquired = undo.move()
  return {
    accepted: accepted.asObservable(),
    warnings: warnings.asObservable(),
    exempt: (address) => exemption.ensure(address),
    stop: () => steering.stopTaking(),
    close: () => acquired.disposeAsync(),
  }
}

/** Each connection needs two descriptors: the program's side and ours. */
function connectionLimit(): number {
  const soft = /Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
  return Math.max(1, Math.floor((Number(soft ?? 1024) - reservedFds) / 2))
}

/** Loads the steering programs; nothing is attached yet. */
export function load(mark: number, scoped: boolean): Steering {
  try {
    return Steering.load({
      mark,
      loIfindex: lo,
      netns: statSync('/proc/self/ns/net').ino,
      pidns: statSync('/proc/self/ns/pid').ino,
      scoped: scoped ? 1 : 0,
    })
  } catch (cause) {
    throw explain(cause)
  }
}

/** What the kernel's refusal means, and what to do. */
function explain(cause: unknown): TproxyError {
  if (cause instanceof TproxyError) return cause
  const text = reason(cause)
  const errno = cause instanceof LoadError || cause instanceof NativeError ? cause.errno : undefined
  if (errno === 0) return new TproxyError('E_LIBRARY', text, { cause })
  if (errno === 1 || errno === 13)
    return new TproxyError('E_PRIVILEGE', text, {
      hint: 'needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: run as root',
      cause,
    })
  return new TproxyError('E_KERNEL', text, { hint: 'needs Linux 6.6 with BTF: see tproxy-run doctor', cause })
}

function describer(): (flow: Flow | undefined) => Pick<Accepted, 'process' | 'rule'> {
  let paths: CgroupPaths | undefined
  return (flow) => {
    if (flow === undefined) return {}
    const { pid, name, uid, gid, cgroup } = flow.owner
    paths ??= new CgroupPaths()
    return {
      ...(flow.rule !== 0 && { rule: flow.rule }),
      ...(pid !== 0 && { process: { pid, name, uid, gid, cgroup: paths.find(cgroup, pid) } }),
    }
  }
}
