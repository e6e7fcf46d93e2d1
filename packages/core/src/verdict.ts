import { type Duplex, isReadable, isWritable } from 'node:stream'
import type { Connection } from './connection.ts'
import { TproxyError } from './errors.ts'
import { checkRemember, type Remember } from './remember.ts'
import type { Upstream } from './upstream.ts'

/** What becomes of a connection. Plain data, made by {@link direct}, {@link via} and {@link drop}. */
export type Verdict =
  | ({ readonly kind: 'direct' } & DirectOptions)
  | ({ readonly kind: 'via'; readonly upstream: Upstream } & CarryOptions)
  | { readonly kind: 'drop'; readonly reset: boolean; readonly remember?: Remember }

/** How a connection is carried. */
export interface CarryOptions {
  /**
   * Makes streams for the bytes to pass through, anew for each connection and once the other side is reached. Such a
   * connection is carried by this process, never by the kernel. When it throws, or a stream of it fails or closes early,
   * both sides are reset.
   */
  readonly transform?: (connection: Connection) => Transforms
}

/** How a connection is carried to where its program wanted. */
export interface DirectOptions extends CarryOptions {
  /** Later connections then are as if there was no proxy: no session, no plugin, no listener. Not with `transform`. */
  readonly remember?: Remember
}

/**
 * Streams such as `Transform`s, by direction: what arrives is written into one, what is read from it goes on, and it ends when
 * the side that it reads from has ended. A direction without one passes unchanged.
 */
export interface Transforms {
  /** From the program to its destination. */
  readonly sent?: Duplex
  /** Back to the program. */
  readonly received?: Duplex
}

/**
 * Let the connection go to its original destination, as its program sent it: from its own address and port, and with its own TCP
 * options. With `transform`, where somebody wanted its socket, and where another program is at the same hook of the interface, it is
 * carried there from the same address and interface. Throws `E_OPTION` for options that are none.
 */
export function direct(options: DirectOptions = {}): Verdict {
  const { remember, transform } = options
  checkTransform(transform)
  if (remember !== undefined) checkRemember(remember, transform)
  return { kind: 'direct', ...options }
}

/**
 * Carry the connection through `upstream`. If that fails the program hears that it is refused, never a direct connection. Throws
 * `E_OPTION` for what is no upstream.
 */
export function via(upstream: Upstream, options: CarryOptions = {}): Verdict {
  if (!isUpstream(upstream))
    throw new TproxyError('E_OPTION', 'via: no upstream is given', {
      hint: "an upstream has connect(destination, signal), as socksUpstream('socks5://…') does",
    })
  checkTransform(options.transform)
  return { kind: 'via', upstream, ...options }
}

/**
 * Refuse the connection: as a closed port does, with a TCP reset (the default), or with `reset: false` by accepting it and closing it in order (FIN). With `remember`,
 * the kernel refuses later ones at once, as a closed port does.
 */
export function drop({ reset = true, remember }: { reset?: boolean; remember?: Remember } = {}): Verdict {
  if (remember !== undefined) checkRemember(remember)
  return { kind: 'drop', reset, ...(remember !== undefined && { remember }) }
}

function checkTransform(transform: unknown): void {
  if (transform !== undefined && typeof transform !== 'function')
    throw new TproxyError('E_OPTION', 'transform is no function', {
      hint: 'give one from a connection to { sent, received }',
    })
}

const isUpstream = (value: unknown): value is Upstream =>
  typeof (Object(value) as Partial<Upstream>).connect === 'function'

/** Whether a value a plugin returned is a verdict. */
export function isVerdict(value: unknown): value is Verdict {
  if (typeof value !== 'object' || value === null || !('kind' in value)) return false
  if (value.kind === 'drop') return true
  if ('transform' in value && !['function', 'undefined'].includes(typeof value.transform)) return false
  if (value.kind === 'via') return 'upstream' in value && isUpstream(value.upstream)
  return value.kind === 'direct'
}

/** The streams for a connection; undefined when nobody reads its bytes. Throws `E_PLUGIN` for what are none. */
export function transformsOf(connection: Connection, { transform }: CarryOptions): Transforms | undefined {
  if (transform === undefined) return undefined
  const transforms: unknown = transform(connection)
  if (isTransforms(transforms)) return transforms
  throw new TproxyError('E_PLUGIN', 'transform: it returned something that is no pair of streams', {
    hint: 'return { sent, received }, both optional, and no promise',
  })
}

function isTransforms(value: unknown): value is Transforms {
  if (typeof value !== 'object' || value === null || value instanceof Promise) return false
  const { sent, received } = value as Record<keyof Transforms, unknown>
  return [sent, received].every((stream) => stream === undefined || isDuplex(stream))
}

/** Also one of another library. */
const isDuplex = (value: unknown): value is Duplex =>
  isReadable(value as Duplex) !== null && isWritable(value as Duplex) !== null
