// A program that embeds the proxy. Started by proxy.ts, which tells it what to do by lines of JSON on its standard input, and
// reads what happens from its standard output.
import { execFile } from 'node:child_process'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { drop, formatEndpoint, type Plugin, TproxyError, TransparentProxy, type Verdict } from '@tproxy/core'
import type { ProxySetup } from './proxy.ts'

const setup = JSON.parse(process.argv[2] ?? '{}') as ProxySetup

function say(event: string, rest: object = {}): void {
  process.stdout.write(`${JSON.stringify({ event, ...rest })}\n`)
}

/** Misbehaves, or drops, as the destination port says. */
const faulty: Plugin = function faulty({ destination }) {
  switch (destination.port) {
    case 1101:
      throw new Error('out of order')
    case 1102:
      return new Promise(() => {})
    case 1103:
      return 'yes please' as unknown as Verdict
    case 1104:
      return drop()
    case 1105:
      return drop({ reset: false })
    case 1106:
      return Promise.reject(new Error('out of order, later'))
    default:
      return undefined
  }
}

/** Something of ours that connects from within a plugin, before it decides. */
const curious: Plugin = function curious({ destination }) {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  if (destination.port !== 80) return undefined
  const socket = connect(7, destination.address, () => {
    socket.destroy()
    resolve(undefined)
  })
  socket.once('error', () => resolve(undefined))
  return promise
}

async function start(): Promise<TransparentProxy> {
  const { plugins = [], quiet = false, ...options } = setup
  const known = { faulty, curious }
  const proxy = await TransparentProxy.open({ ...options, plugins: plugins.map((name) => known[name]) })
  proxy.warnings.subscribe((message) => say('warning', { message }))
  proxy.sessions.subscribe(async (session) => {
    if (quiet) return
    const { connection, verdict, plugin } = session
    const { id, process: program, interface: device, rule } = connection
    const ends = {
      source: formatEndpoint(connection.source),
      destination: formatEndpoint(connection.destination),
    }
    say('session', { id, ...ends, process: program, interface: device, rule, verdict: verdict.kind, plugin })
    const { bytes, end } = await session.ended
    say('ended', { id, ...ends, ...bytes, how: end?.how, by: end?.by, error: end?.error?.message })
  })
  return proxy
}

async function obey(line: string, proxy: TransparentProxy): Promise<void> {
  const order = JSON.parse(line) as { fetch?: string; run?: string[]; active?: true }
  if (order.fetch !== undefined) {
    const text = await fetch(order.fetch).then((response) => response.text(), String)
    say('fetched', { text })
  }
  if (order.run !== undefined) {
    const [command = '', ...args] = order.run
    execFile(command, args, (error, stdout) => say('ran', { stdout, error: error?.message }))
  }
  if (order.active !== undefined) say('active', { active: proxy.active })
}

try {
  const proxy = await start()
  createInterface({ input: process.stdin }).on('line', (line) => void obey(line, proxy))
  process.once('SIGTERM', async () => {
    await proxy.close()
    say('closed')
    process.exit(0)
  })
  say('ready')
} catch (error) {
  say('failed', { code: error instanceof TproxyError ? error.code : undefined, message: String(error) })
  process.exitCode = 1
}
