import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { reason, TproxyError } from './errors.ts'
import type { SessionEnd } from './session.ts'
import type { Transforms } from './verdict.ts'

export interface RelayOptions {
  /** Milliseconds without a byte in either direction after which both sides are reset; 0 for never. */
  readonly idleMs: number
  /** The same once one direction has ended. */
  readonly halfClosedMs: number
  /** Counted into, per chunk. */
  readonly bytes: { sent: number; received: number }
  /** What the bytes pass through on their way. */
  readonly transforms?: Transforms
  /** Called once the stream towards the client was ended in order. */
  readonly clientEnded?: () => void
  /** The same of the one towards the upstream. */
  readonly upstreamEnded?: () => void
}

/**
 * Ends a stream at once, with a TCP reset where it is a socket; behind the FIN if that is on its way already. Unlike
 * `resetAndDestroy`, it may come at any moment.
 */
export function reset(stream: Duplex): void {
  if (!(stream instanceof Socket) || stream instanceof TLSSocket) stream.destroy(new Error('reset'))
  // While the end is under way, libuv refuses a reset (EINVAL), and node never closes the socket then (Node 24).
  else if (isEnding(stream)) stream.once('finish', () => resetNow(stream))
  else resetNow(stream)
}

function resetNow(socket: Socket): void {
  try {
    socket.resetAndDestroy()
  } catch {
    // A Unix socket's has no TCP to reset (ERR_INVALID_HANDLE_TYPE, Node 24).
    socket.destroy(new Error('reset'))
  }
}

const isEnding = ({ writableEnded, writableFinished, writableLength }: Socket) =>
  writableEnded && !writableFinished && writableLength === 0

/** What was reset is closed by then; a stream of somebody's own may never say so. */
const closeMs = 1_000

/** Bytes carried in userspace: back-pressure, half-close in both directions, and a reset for a reset. */
export class Relay {
  /** Resolves when both sides are closed, or were reset a second ago; never rejects. */
  readonly ended: Promise<SessionEnd>
  readonly #client: Duplex
  readonly #upstream: Duplex
  readonly #options: RelayOptions
  readonly #resolve: (end: SessionEnd) => void
  #end: SessionEnd | undefined
  #open = 2
  #flowing = 2
  #lastByte = performance.now()
  #timer: NodeJS.Timeout | undefined
  #last: NodeJS.Timeout | undefined
  readonly #transforms: readonly Duplex[]
  readonly #listeners: [side: Duplex, event: string, listener: (...args: any[]) => void][] = []

  constructor(client: Duplex, upstream: Duplex, options: RelayOptions) {
    const { promise, resolve } = Promise.withResolvers<SessionEnd>()
    this.ended = promise
    this.#resolve = resolve
    this.#client = client
    this.#upstream = upstream
    this.#options = options
    this.#watch(client, 'client')
    this.#watch(upstream, 'upstream')
    this.#arm(options.idleMs)
    const { sent = [], received = [] } = options.transforms ?? {}
    this.#transforms = [sent, received].flat()
    for (const transform of this.#transforms) this.#watchTransform(transform)
    this.#pump(client, [sent, upstream].flat(), (length) => {
      options.bytes.sent += length
    })
    this.#pump(upstream, [received, client].flat(), (length) => {
      options.bytes.received += length
    })
    this.#on(client, 'finish', () => options.clientEnded?.())
    this.#on(upstream, 'finish', () => options.upstreamEnded?.())
  }

  /** Lets go of both sides, which somebody else carries from here; {@link ended} never resolves. */
  handOver(): void {
    clearTimeout(this.#timer)
    clearTimeout(this.#last)
    for (const [side, event, listener] of this.#listeners) side.removeListener(event, listener)
    // Nobody cares what becomes of them.
    for (const side of [this.#client, this.#upstream]) side.on('error', () => {})
  }

  /** Resets both sides. */
  abort(end: SessionEnd): void {
    this.#end ??= end
    this.#reset(this.#client)
    this.#reset(this.#upstream)
  }

  #reset(side: Duplex): void {
    reset(side)
    this.#last ??= setTimeout(() => this.#over(), closeMs)
  }

  #over(): void {
    this.#open = 0
    clearTimeout(this.#timer)
    clearTimeout(this.#last)
    for (const transform of this.#transforms) transform.destroy()
    this.#resolve(this.#end ?? { how: 'closed' })
  }

  #on<Argument = void>(side: Duplex, event: string, listener: (argument: Argument) => void): void {
    side.on(event, listener)
    this.#listeners.push([side, event, listener])
  }

  /** Carries what comes from one side, through what is on the way, to the other. */
  #pump(from: Duplex, way: readonly Duplex[], count: (length: number) => void): void {
    this.#on(from, 'data', (chunk: Buffer) => {
      count(chunk.length)
      this.#lastByte = performance.now()
    })
    const ended = () => {
      this.#flowing--
      this.#lastByte = performance.now()
      if (this.#flowing === 1) this.#arm(this.#options.halfClosedMs)
    }
    // Whoever peeked may have come upon the end.
    if (from.readableEnded) ended()
    else this.#on(from, 'end', ended)
    for (const [index, to] of way.entries()) this.#link(way[index - 1] ?? from, to)
  }

  #link(from: Duplex, to: Duplex): void {
    this.#on(from, 'data', (chunk: Buffer) => {
      if (!to.write(chunk)) from.pause()
    })
    this.#on(to, 'drain', () => from.resume())
    if (from.readableEnded) to.end()
    else this.#on(from, 'end', () => to.end())
    from.resume()
  }

  /** A side that breaks off takes the other with it, as a reset: a truncated stream must not look complete. */
  #watch(side: Duplex, name: 'client' | 'upstream'): void {
    const other = side === this.#client ? this.#upstream : this.#client
    this.#on(side, 'error', (error: Error) => {
      this.#end ??= { how: 'reset', by: name, error }
      this.#reset(other)
    })
    const closed = () => {
      if (!(side.readableEnded && side.writableFinished)) {
        this.#end ??= { how: 'reset', by: name, ...(side.errored && { error: side.errored }) }
        this.#reset(other)
      }
      if (--this.#open === 0) this.#over()
    }
    // It may have broken off before the relay began.
    if (side.closed) queueMicrotask(closed)
    else this.#on(side, 'close', closed)
  }

  /** Bytes that a transform still had are lost with it. */
  #watchTransform(transform: Duplex): void {
    const failed = (cause: unknown) => {
      if (this.#open === 0) return
      const error = new TproxyError('E_PLUGIN', `a transform failed: ${reason(cause)}`, { cause })
      this.abort({ how: 'failed', error })
    }
    transform.on('error', failed)
    transform.on('close', () => {
      if (!(transform.readableEnded && transform.writableFinished)) failed(new Error('it closed early'))
    })
  }

  /** One timer, armed anew only when it fires: a byte costs no timer operation. */
  #arm(limitMs: number): void {
    clearTimeout(this.#timer)
    if (limitMs === 0) return
    const check = () => {
      const leftMs = this.#lastByte + limitMs - performance.now()
      if (leftMs > 1) {
        this.#timer = setTimeout(check, leftMs)
        return
      }
      const what = this.#flowing === 2 ? 'idle' : 'half-closed and idle'
      this.abort({ how: 'timeout', error: new TproxyError('E_TIMEOUT', `${what} for ${limitMs} ms`) })
    }
    this.#timer = setTimeout(check, limitMs)
  }
}
