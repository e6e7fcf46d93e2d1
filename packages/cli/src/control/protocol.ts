import type {
  Action,
  FastpathMode,
  Packet,
  ProcessInfo,
  SessionEnd,
  Shadow,
  TraceStep,
  TraceTarget,
} from '@tproxy/core'
import type { Failure } from '../finding.ts'

/** What a running tproxy-run can be asked: one JSON object a line, over its socket. */
export type Request =
  | { readonly request: 'rules' }
  | { readonly request: 'status' }
  /** As `rules`, every second. */
  | { readonly request: 'watch' }
  | { readonly request: 'explain'; readonly packet: Packet }
  | { readonly request: 'reload'; readonly reset: boolean }
  /** {@link Sessions}, at once and at every interval, of at least 100 ms. */
  | { readonly request: 'sessions'; readonly intervalMs: number }
  /** {@link TraceLine}s, the first of which says that it began. */
  | { readonly request: 'trace'; readonly target: TraceTarget }
  /** Resets a connection; answers how it ended. */
  | { readonly request: 'close'; readonly id: SessionRow['id'] }

/** How a tproxy-run is doing. */
export interface Status {
  readonly pid: number
  /** Milliseconds since it began. */
  readonly upMs: number
  /** Connections now, by who carries them. */
  readonly carried: { readonly splice: number; readonly relay: number }
  /** Of those that an earlier process left to the kernel, how many last. */
  readonly adopted: number
  /** Connections so far that the kernel decided as a plugin had decided before. */
  readonly recalled: number
  readonly fastpath: {
    readonly mode: FastpathMode
    /** Why it is off although it was asked for. */
    readonly problem?: string
    /** Messages that skipped the network stack, so far. */
    readonly redirected?: number
  }
  readonly rules: number
  /** Of this process, in bytes. */
  readonly memory: number
}

/** The connections that last. */
export interface Sessions {
  /** When this was so, in milliseconds on the clock of the process. */
  readonly atMs: number
  /** How many there are; listed are the newest 1000. */
  readonly total: number
  readonly sessions: readonly SessionRow[]
}

export interface SessionRow {
  /** As in events; `a` and a number for those that an earlier process left to the kernel. */
  readonly id: number | `a${number}`
  readonly source: Place
  readonly destination: Place
  /** The host name that the program speaks of, where somebody looked. */
  readonly name?: string | undefined
  readonly process?: ProcessInfo | undefined
  readonly interface?: string | undefined
  readonly rule?: number | undefined
  readonly verdict: 'direct' | 'via' | 'drop'
  readonly plugin?: string | undefined
  readonly upstream?: string | undefined
  readonly carried: 'splice' | 'relay'
  readonly notSpliced?: string | undefined
  readonly bytes: { readonly sent: number; readonly received: number }
  /** Since the verdict; unknown for those of an earlier process. */
  readonly durationMs?: number | undefined
}

/** What is told of a destination: what the kernel does with its packets, and what becomes of its connections. */
export type TraceLine =
  | ({ readonly event: 'tracing'; readonly pid: number } & TraceTarget)
  | ({ readonly event: 'step' } & TraceStep)
  | { readonly event: 'session'; readonly timeMs: number; readonly session: SessionRow }
  | {
      readonly event: 'end'
      readonly timeMs: number
      readonly session: SessionRow
      readonly how: SessionEnd['how']
      readonly error?: string
    }

interface Place {
  readonly address: string
  readonly port: number
}

/** A line of the answer. */
export type Response = { readonly answer: unknown } | { readonly error: Failure }

interface Counts {
  readonly packets: number
  readonly bytes: number
}

/** The rules in force, as texts. */
export interface RulesState {
  readonly rules: readonly (Counts & { readonly number: number; readonly rule: string })[]
  readonly default: Counts & { readonly action: Action }
  readonly shadowed: readonly Shadow[]
}

/** Which rule wins, and which came close. */
export interface Verdict {
  /** From 1; 0 is the default. */
  readonly rule: number
  /** `direct` for another protocol than TCP where the default is proxy, which leaves it alone. */
  readonly action: Action
  /** Of the rule, or such as `default drop`. */
  readonly text: string
  /** A plugin's verdict that the kernel remembers, and until when (ISO 8601): it decides instead of the plugin. */
  readonly remembered?: { readonly verdict: 'direct' | 'drop'; readonly until: string }
  /** How many rules stand before it. */
  readonly before: number
  /** Those of them against which least speaks, in order. */
  readonly misses: readonly {
    readonly rule: number
    readonly text: string
    readonly against: readonly string[]
  }[]
}

export interface Reloaded {
  readonly rules: number
  readonly default: Action
  readonly plugins: readonly string[]
  /** For what no plugin decides. */
  readonly verdict: 'direct' | 'drop'
  /** Keys of the configuration file that changed, and have no effect before a restart. */
  readonly restart: readonly string[]
}
