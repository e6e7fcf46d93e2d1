import { readFileSync } from 'node:fs'
import {
  Exemption,
  type Fastpath,
  type HeldSyn,
  Limit,
  replyMark,
  type Splicing,
  type Steering,
  transparentListener,
} from '@tproxy/bpf'
import { asyncScheduler, defer, map, merge, Subject, scheduled } from 'rxjs'
import { reason, TproxyError } from '../errors.ts'
import { type FastpathState, limits } from '../options.ts'
import type { RuleList } from '../rules/model.ts'
import { readRules } from '../rules/read.ts'
import type { Accepted, Transport } from '../transport.ts'
import { AcceptedConnection } from './accepted.ts'
import { Acceptor } from './acceptor.ts'
import { Alone } from './alone.ts'
import { watchAttached } from './attached.ts'
import { requireCgroup } from './cgroup.ts'
import { describeFlow, describer } from './describe.ts'
import { type Device, Devices } from './devices.ts'
import { Dialler } from './dial.ts'
import { UpstreamExemption } from './exemption.ts'
import { openFastpath } from './fastpath.ts'
import { follow } from './follow.ts'
import { Guard } from './guard.ts'
import { Held } from './held.ts'
import { enter } from './instances.ts'
import type { InterceptOptions } from './intercept-options.ts'
import { interfaceNames, presentInterfaces, selectInterfaces } from './interfaces.ts'
import { forgetKept, keepIn } from './keep.ts'
import { KernelMemories } from './memories.ts'
import { Openings } from './openings.ts'
import { explain, lo, loadSplicing, loadSteering } from './programs.ts'
import { routingOptions } from './routing.ts'
import { KernelRules } from './rules.ts'
import { Splicer } from './splicer.ts'
import { Tracer } from './trace.ts'
import { knownProblem } from './trial/known.ts'

/** Of silence, after which the kernel asks whether a peer is still there; it gives up after nine more questions. */
const keepAliveSeconds = 60

/** In milliseconds: what a program has begun to open and not finished is known for twice as long at most. */
const unclaimedMs = 15_000

/** Descriptors for everything that is no connection: plugins, files, programs and maps. */
const reservedFds = 256

/**
 * Interception at the traffic-control hooks, with everything it needs: listeners, programs, routing. Throws `TproxyError`
 * with nothing left behind. Linux 6.6, CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON.
 */
export async function openTransport(
  options: InterceptOptions,
  checkRules: (list: RuleList) => void = () => {},
  problemOfSplicing: () => Promise<string | undefined> = knownProblem,
): Promise<Transport> {
  const routing = routingOptions(options.routing)
  const list = readRules(options.rules ?? [], options.defaultAction)
  checkRules(list)
  if (options.failClosed === true && options.cgroup === undefined)
    throw new TproxyError('E_OPTION', 'failClosed without cgroup', {
      hint: 'name the cgroup that ends with us',
    })
  if (options.keepSpliced === true && (options.failClosed === true || options.carry === 'relay'))
    throw new TproxyError(
      'E_OPTION',
      `keepSpliced with ${options.failClosed ? 'failClosed' : "carry: 'relay'"}`,
      { hint: 'leave out one of them' },
    )
  if (options.cgroup !== undefined) requireCgroup(options.cgroup)
  const selection = options.interfaces ?? 'auto'
  const found = selectInterfaces(selection)
  if (found.length > Limit.devices)
    throw new TproxyError('E_OPTION', `${found.length} interfaces`, { hint: `at most ${Limit.devices}` })

  await using undo = new AsyncDisposableStack()
  const accepted = new Subject<Accepted>()
  // They come as soon as the first interface is attached, and nobody listens before all is.
  const early: Accepted[] = []
  undo.defer(() => {
    for (const connection of early) connection.reset?.()
  })
  const warnings = new Subject<string>()
  const scope = options.cgroup
  const instance = await enter(routing, {
    interfaces: scope === undefined ? found.map(({ name }) => name) : [],
    ...(scope !== undefined && { cgroup: scope }),
    keeps: options.keepSpliced === true,
  })
  undo.defer(() => instance.close())

  const mark = (routing.mark | (instance.number << 8)) >>> 0
  const steering = undo.use(loadSteering(mark, scope !== undefined))
  const directory = options.keepSpliced === true ? keepIn(instance.number) : undefined
  const problem = options.carry === 'relay' ? 'it was asked to be relayed' : await problemOfSplicing()
  const { splicing, unspliced } =
    problem === undefined
      ? tryToSplice({ mark, directory, steering })
      : { splicing: undefined, unspliced: problem }
  if (splicing !== undefined) undo.use(splicing)
  if (directory !== undefined)
    undo.defer(() => {
      if (splicing?.pairs().next().done !== false) forgetKept(directory)
    })
  const { fastpath, state } = await tryFastpath(options, steering)
  if (fastpath !== undefined) undo.use(fastpath)
  let splicer: Splicer | undefined
  let devices: Devices | undefined
  const interfaceName = (ifindex: number) => (ifindex === lo ? 'lo' : devices?.nameOf(ifindex))
  if (scope !== undefined) steering.setScope(scope)
  // What its plugins start, too. But to init all come whose parents have ended.
  const ours = scope === undefined && process.pid !== 1
  steering.exempt(process.pid, Exemption.process | (ours ? Exemption.descendants : 0))
  const describe = describer()
  const rules = undo.use(
    new KernelRules({
      steering,
      list,
      check: checkRules,
      describe: ({ owner }) => describe(owner),
      interfaceName,
      warn: (message) => warnings.next(message),
    }),
  )

  const memories = new KernelMemories(steering)
  const tracer = undo.use(new Tracer(steering, interfaceName))
  const backlog = Number(readFileSync('/proc/sys/net/core/somaxconn', 'utf8'))
  const budget = { limit: connectionLimit(), open: 0 }
  const dialler = undo.use(new Dialler())
  const deliver = (connection: Accepted) => {
    if (accepted.observed) accepted.next(connection)
    else early.push(connection)
  }
  const acceptors = new Map<number, Acceptor>()
  const listen = (device: Device, family: 4 | 6): Acceptor => {
    const fd = transparentListener({
      family,
      mark: replyMark(mark, device.slot),
      backlog,
      keepAliveSeconds,
    })
    const acceptor = new Acceptor({
      device,
      fd,
      budget,
      dialler,
      takeFlow: (key) => steering.takeFlow(key),
      ...(fastpath !== undefined && { fastpath }),
      ...(splicing !== undefined && {
        admit: (key, version) => splicing.admit(key, device.interface.ifindex, version),
      }),
      remember: memories.remember,
      leavesAlone: () => options.carry !== 'relay' && steering.isUnobserved(device.interface.ifindex),
      keeps: options.keepSpliced === true,
      describe: (flow, ends) => describeFlow(flow, ends, describe, rules),
      accepted: deliver,
      warn: (message) => warnings.next(message),
    })
    steering.setListener(device.slot, family, fd)
    acceptors.set(listenerOf(device.slot, family), acceptor)
    return acceptor
  }
  const openings: Openings = undo.use(
    new Openings(steering.openings, (syn) => {
      const acceptor = acceptors.get(listenerOf(syn.flow.slot, versionOf(syn)))
      // Only a family that has a listener is held.
      if (acceptor === undefined) return
      const held = new Held(syn, { openings, acceptor })
      try {
        deliver(acceptor.hold(held))
      } catch (error) {
        held.refuse()
        warnings.next(`refused a connection: ${reason(error)}`)
      }
    }),
  )

  const exemption = undo.use(new UpstreamExemption(steering))
  try {
    // The way back first: no packet is taken off its way before the answer can return.
    steering.attachReturnPath(lo)
    splicing?.attachLoopback(lo, steering.loopbackEgress)
    const attached = undo.adopt(new Devices(steering, splicing, listen, scope !== undefined), (it) =>
      it.close(),
    )
    devices = attached
    const { refused } = attached.update(found)
    if (refused.length > 0) throw refused[0]
    const { idleMs, halfClosedMs } = limits(options.timeouts)
    splicer =
      splicing &&
      undo.use(
        new Splicer({
          splicing,
          ifindexOf: (name) => attached.ifindexOf(name),
          budget,
          limits: { idleMs, halfClosedMs },
          keeps: directory !== undefined,
        }),
      )
    const unclaimed = setInterval(() => steering.forgetUnclaimed(), unclaimedMs).unref()
    undo.defer(() => clearInterval(unclaimed))
    const guard =
      directory === undefined
        ? undo.use(
            new Guard(options.failClosed === true ? scope : undefined, steering.proxiedEnder(), (message) =>
              warnings.next(message),
            ),
          )
        : undefined
    const attachedAnew = () => guard?.hold([...steering.links, ...(splicing?.links ?? [])])
    attachedAnew()
    undo.use(
      watchAttached({
        steering,
        splicing,
        interfaces: () => attached.interfaces,
        attached: attachedAnew,
        warn: (message) => warnings.next(message),
      }),
    )
    undo.use(
      follow({
        present: async () => {
          const present = presentInterfaces(selection)
          attached.rename(interfaceNames())
          if (scope !== undefined) return { present, taken: [] }
          // Also of those that are not meant any more: our programs are still there.
          const held = attached.interfaces.filter(({ ifindex }) => steering.intercepts(ifindex))
          const names = new Set([...present, ...held].map(({ name }) => name))
          const taken = await instance.claim([...names])
          return { present: present.filter(({ name }) => taken.every((each) => each.name !== name)), taken }
        },
        devices: attached,
        attached: attachedAnew,
        changed: async () => {
          rules.refresh()
          if (await instance.restore())
            warnings.next(
              'our routing rule or route was missing, and is back: somebody removed it (systemd-networkd does: ManageForeignRoutingPolicyRules=no), or IPv6 was switched on',
            )
        },
        warn: (message) => warnings.next(message),
      }),
    )
  } catch (cause) {
    throw explain(cause)
  }

  const acquired = undo.move()
  return {
    // Once our caller has had its turn, and listens to what becomes of them.
    accepted: merge(
      accepted,
      defer(() => scheduled(takenFrom(early), asyncScheduler)),
    ),
    warnings: warnings.asObservable(),
    rules,
    outdated: rules.resets.pipe(
      map(() => (connection: Accepted) => {
        const { action, via } = rules.judge(connection)
        return action !== 'proxy' || via !== connection.via
      }),
    ),
    exempt: (address) => exemption.ensure(address),
    get interfaces() {
      const known = acquired.disposed ? [] : (devices?.interfaces ?? [])
      return known.filter(({ ifindex }) => steering.intercepts(ifindex)).map(({ name }) => name)
    },
    adopted: splicer?.adopted ?? [],
    fastpath: state,
    memories,
    trace: (target) => tracer.trace(target),
    counters: () => ({
      steering: steering.counters(),
      ...(splicing && { splice: splicing.counters() }),
      ...(state.counts && { fastpath: state.counts() }),
    }),
    splice: (connection, upstream, listener) => {
      if (upstream instanceof Alone) {
        upstream.carry(listener)
        return upstream
      }
      const splice = splicer?.splice(connection, upstream, listener) ?? unspliced
      const key = connection instanceof AcceptedConnection ? connection.key : undefined
      if (typeof splice !== 'string' && key !== undefined) fastpath?.forget(key)
      return splice
    },
    stop: () => steering.rules.stopTaking(),
    close: () => acquired.disposeAsync(),
  }
}

/** Each connection needs two descriptors: the program's side and ours. */
function connectionLimit(): number {
  const soft = /Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
  return Math.max(1, Math.floor((Number(soft ?? 1024) - reservedFds) / 2))
}

/** A kernel that does not take these programs costs speed, and no connection. */
function tryToSplice(how: Parameters<typeof loadSplicing>[0]): {
  splicing: Splicing | undefined
  unspliced: string
} {
  try {
    return { splicing: loadSplicing(how), unspliced: '' }
  } catch (cause) {
    return { splicing: undefined, unspliced: reason(cause) }
  }
}

/** The same for these. */
async function tryFastpath(
  { fastpath: mode = 'off', cgroup }: InterceptOptions,
  { sockets }: Steering,
): Promise<{ fastpath?: Fastpath; state: FastpathState }> {
  if (mode === 'off') return { state: { mode } }
  try {
    const fastpath = await openFastpath({ mode, cgroup, sockets })
    return { fastpath, state: { mode, counts: () => fastpath.counters() } }
  } catch (cause) {
    return { state: { mode: 'off', problem: reason(cause) } }
  }
}

/** Takes one after the other out of a list, when it is asked for. */
function* takenFrom<T>(list: T[]): Generator<T> {
  for (let next = list.shift(); next !== undefined; next = list.shift()) yield next
}

const listenerOf = (slot: number, family: 4 | 6) => slot * 2 + (family === 6 ? 1 : 0)

/** It stands in the first four bits (RFC 791, RFC 8200). */
const versionOf = ({ syn: [first = 0] }: HeldSyn) => (first >> 4 === 6 ? 6 : 4)
