import { TproxyError } from './errors.ts'

/** Deadlines and limits of a connection's life, in milliseconds. */
export interface Timeouts {
  /** From its first packet to a verdict; then the connection is refused, or reset where it was accepted. Default 10 000. */
  readonly decisionMs?: number
  /** For reaching the upstream or destination, with all handshakes. Default 30 000. */
  readonly connectMs?: number
  /** Without a byte in either direction. Default two hours; 0 for never. */
  readonly idleMs?: number
  /** Without a byte after one direction has ended. Default ten minutes; 0 for never. */
  readonly halfClosedMs?: number
  /** For sessions to finish after `close()`; then they are reset. Default 5 000. */
  readonly drainMs?: number
}

/**
 * Whose reads skip the network stack on a connection that this process carries: `to-proxy`, our own; `both`, the program's
 * too, and then side effects on the program are accepted, which docs/fastpath.md lists; `off`, nobody's.
 */
export type FastpathMode = 'to-proxy' | 'both' | 'off'

/** What became of the fastpath. */
export interface FastpathState {
  readonly mode: FastpathMode
  /** Why it is off although it was asked for. */
  readonly problem?: string
  /** Connections and messages by outcome, so far; see `enum fastpath_counter` in contract.h. */
  readonly counts?: () => Readonly<Record<string, bigint>>
}

export type Limits = Required<Timeouts>

const defaults: Limits = {
  decisionMs: 10_000,
  connectMs: 30_000,
  idleMs: 7_200_000,
  halfClosedMs: 600_000,
  drainMs: 5_000,
}

/** Fills in what is missing. Throws `E_OPTION` for what is no time. */
export function limits(timeouts: Timeouts = {}): Limits {
  // setTimeout(3) of Node fires at once beyond 2^31 ms.
  for (const [name, value] of Object.entries(timeouts))
    if (!(name in defaults) || !Number.isFinite(value) || value < 0 || value >= 2 ** 31)
      throw new TproxyError('E_OPTION', `timeouts.${name} is ${value}`, {
        hint: `milliseconds, one of ${Object.keys(defaults).join(', ')}`,
      })
  for (const name of ['decisionMs', 'connectMs'] as const)
    if (timeouts[name] === 0)
      throw new TproxyError('E_OPTION', `timeouts.${name} is 0`, { hint: 'nothing is done in no time' })
  return { ...defaults, ...timeouts }
}
