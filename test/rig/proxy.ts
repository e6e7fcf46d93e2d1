// Embeds the proxy as a user would, in a process of its own: options from the command line as JSON, events as JSON lines.
import { execFile } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { get } from 'node:http'
import type { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { direct, drop, type Plugin, reason, TransparentProxy, UpstreamSocket } from '@tproxy/core'
import { firstValueFrom } from 'rxjs'
import dialled, { byItself } from './dialled.ts'
import type { ProxyProgramOptions, RuleCommand } from './world.ts'

// Imported by mistake, or started by hand, it would intercept the machine itself.
const machine = process.env['RIG_MACHINE']
if (machine === undefined || readlinkSync('/proc/self/ns/net') === machine)
  throw new Error('rig/proxy.ts runs in a host of the rig only')

// Memory that nobody needs is no leak.
setFlagsFromString('--expose-gc')

const say = (event: string, fields: object = {}) => console.log(JSON.stringify({ event, ...fields }))

const plugins: Record<string, Plugin> = {
  direct: function everything() {
    return direct()
  },
  dropping: function dropping({ destination: { port } }) {
    if (port === 25) return drop()
    if (port === 26) return drop({ reset: false })
    return undefined
  },
  failing: function failing({ destination: { port } }) {
    if (port === 1) throw new Error('broken on purpose')
    if (port === 2) return new Promise(() => {})
    if (port === 3) return 'nonsense' as never
    return undefined
  },
  peeking: async function peeking(connection) {
    const peeked = await connection.peek()
    say('peeked', { id: connection.id, ...peeked })
    return direct()
  },
  remembering: function remembering({ destination: { port } }) {
    if (port === 25) return drop({ remember: { ttl: 60_000 } })
    return direct({ remember: { ttl: port === 22 ? 500 : 60_000 } })
  },
  byAddress: function byAddress() {
    return direct({ remember: { ttl: 60_000, by: 'address' } })
  },
  // Plain data, as a plugin in JavaScript may return it: direct() would have refused.
  rememberingTransformed: function rememberingTransformed() {
    return { kind: 'direct', transform: () => ({}), remember: { ttl: 60_000 } }
  },
  rememberingPeeked: async function rememberingPeeked(connection) {
    await connection.peek()
    return direct({ remember: { ttl: 60_000, whateverName: connection.destination.port === 80 } })
  },
  dialled: dialled(),
  // Web pages are left alone.
  mixed: ({ destination: { port } }) => (port === 80 ? direct() : byItself),
  alternating: ({ id }) => (id % 2 === 0 ? direct() : byItself),
  // Its programs' kernels ask a second time, after a second.
  slow: async function slow() {
    await sleep(1_500)
    return direct()
  },
  taking: function taking(connection) {
    connection.take().end('taken')
    return undefined
  },
  // As a server does that is given it, and is done.
  answering: function answering(connection) {
    const socket = connection.take().resume()
    socket.end(Buffer.alloc(5_000_000))
    socket.once('finish', () => socket.destroy())
    return undefined
  },
  // The program is connected before it is decided, so that nothing can be left alone.
  accepting: function accepting(connection) {
    connection.socket.pause()
    return direct()
  },
  hesitating: async function hesitating(connection) {
    connection.socket.pause()
    await sleep(5)
    return direct()
  },
  // What a plugin does by itself while it decides: none of it may come back as a connection.
  busy: async function busy() {
    const url = 'http://203.0.113.10/bytes/1'
    const fetched = new Promise((resolve, reject) => {
      get(url, { agent: false }, (response) => response.resume().once('end', resolve)).once('error', reject)
    })
    const child = new Promise((resolve, reject) => {
      execFile('curl', ['-s', '-m', '3', url], (error) => (error ? reject(error) : resolve(undefined)))
    })
    await Promise.all([fetch(url).then((r) => r.text()), fetched, child])
    return direct()
  },
}

const {
  plugin = 'dialled',
  silent = false,
  accepting: _,
  aged: __,
  ...options
} = JSON.parse(process.argv[2] ?? '{}') as ProxyProgramOptions
try {
  // What such sockets wait with, for the first of them opens it: tests compare how many descriptors are open.
  await UpstreamSocket.connect({ host: '127.0.0.1', port: 1 }, AbortSignal.timeout(1_000)).catch(() => {})
  const chosen = plugins[plugin]
  const proxy = await TransparentProxy.open({ ...options, plugins: chosen === undefined ? [] : [chosen] })
  for (const adopted of proxy.adopted) {
    const { source, destination, upstream } = adopted
    say('adopted', { source, destination, upstream })
    void adopted.ended.then(({ how, by }) => say('adopted-end', { source, how, by, bytes: adopted.bytes }))
  }
  proxy.warnings.subscribe((message) => say('warning', { message }))
  proxy.sessions.subscribe(async (session) => {
    if (silent) return
    const { id, source, destination, process, interface: device, rule } = session.connection
    say('session', {
      id,
      source,
      destination,
      process,
      interface: device,
      rule,
      verdict: session.verdict.kind,
      plugin: session.plugin,
      remembered: session.remembered,
    })
    const { end, bytes, durationMs } = await session.ended
    const { carried, notSpliced } = session
    say('end', {
      id,
      how: end?.how,
      by: end?.by,
      error: end?.error?.message,
      bytes,
      durationMs,
      carried,
      notSpliced,
    })
  })
  proxy.rules?.logged.subscribe(
    ({ rule, action, protocol, destination, interface: device, process: program }) =>
      say('logged', { rule, action, protocol, destination, interface: device, process: program }),
  )
  // A line replaces the rules, or asks for their counts. It is no reason to go on.
  ;(process.stdin as Socket).unref()
  createInterface({ input: process.stdin }).on('line', (line) => {
    const {
      rules,
      default: fallback,
      reset,
      forget,
      trace,
      counted,
      collect,
    } = JSON.parse(line) as RuleCommand
    try {
      if (trace !== undefined)
        void firstValueFrom(proxy.trace({ address: trace })).then(({ hook }) => say('traced', { hook }))
      if (collect) {
        runInNewContext('gc')()
        const { heapUsed, external } = process.memoryUsage()
        say('collected', { inUse: heapUsed + external })
      }
      if (counted) proxy.rules?.counted.subscribe({ complete: () => say('counted') })
      if (rules !== undefined)
        proxy.rules?.replace(rules, { ...(reset && { reset }), ...(fallback && { default: fallback }) })
      const counts = proxy.rules?.counts().map(({ packets, bytes }) => [Number(packets), Number(bytes)])
      const fastpath = Object.entries(proxy.fastpath.counts?.() ?? {}).map(([name, count]) => [
        name,
        Number(count),
      ])
      if (forget === 'all') proxy.memories?.clear()
      for (const memory of proxy.memories?.list() ?? [])
        if (memory.port === forget) proxy.memories?.forget(memory)
      say('rules', {
        counts,
        list: proxy.rules?.list,
        interfaces: proxy.interfaces,
        fastpath: Object.fromEntries(fastpath),
        recalled: proxy.memories?.recalled,
        remembered: proxy.memories?.list(),
      })
    } catch (error) {
      say('rules', { error: reason(error) })
    }
  })
  process.once('SIGTERM', () => void proxy.close().then(() => say('closed')))
  process.on('uncaughtException', (error) => say('uncaught', { message: reason(error), stack: error.stack }))
  process.on('unhandledRejection', (error) => say('uncaught', { message: reason(error) }))
  say('ready', { fastpath: proxy.fastpath })
} catch (error) {
  say('failed', { code: (error as { code?: string }).code, message: reason(error) })
  process.exitCode = 1
}
