import type { Upstream } from './upstream.ts'

/** What becomes of a connection. Plain data, made by {@link direct}, {@link via} and {@link drop}. */
export type Verdict =
  | { readonly kind: 'direct' }
  | { readonly kind: 'via'; readonly upstream: Upstream }
  | { readonly kind: 'drop'; readonly reset: boolean }

/** Carry the connection to its original destination, from the same source address and interface. */
export function direct(): Verdict {
  return { kind: 'direct' }
}

/** Carry the connection through `upstream`. If that fails the client gets a reset, never a direct connection. */
export function via(upstream: Upstream): Verdict {
  return { kind: 'via', upstream }
}

/** Refuse the connection: with a TCP reset (the default), or with `reset: false` by closing it in order (FIN). */
export function drop(options: { reset?: boolean } = {}): Verdict {
  return { kind: 'drop', reset: options.reset ?? true }
}

/** Whether a value a plugin returned is a verdict. */
export function isVerdict(value: unknown): value is Verdict {
  if (typeof value !== 'object' || value === null || !('kind' in value)) return false
  if (value.kind === 'via')
    return 'upstream' in value && typeof (value.upstream as Partial<Upstream>)?.connect === 'function'
  return value.kind === 'direct' || value.kind === 'drop'
}
