import type { Observable } from 'rxjs'
import type { Endpoint } from '../endpoint.ts'
import type { ProcessInfo } from '../process.ts'
import type { FieldName } from './compiled/lookup.ts'
import type { Action, Rule, RuleList } from './model.ts'
import type { Packet } from './reference.ts'

/** What a rule decided so far. Counted are the packets that programs sent, not the answers. */
export interface RuleCount {
  /** From 1; 0 is the default. */
  readonly number: number
  readonly packets: bigint
  /** From the IP header on. */
  readonly bytes: bigint
}

/** A connection, or a packet of another protocol, that a rule with `log` decided. */
export interface RuleEvent {
  readonly time: Date
  /** From 1; 0 is the default. */
  readonly rule: number
  readonly action: Action
  /** By its IANA number. */
  readonly protocol: number
  readonly source: Endpoint
  readonly destination: Endpoint
  readonly interface: string | undefined
  /** From the IP header on. */
  readonly bytes: number
  /** Known for TCP. */
  readonly process: ProcessInfo | undefined
}

/** A rule that never matches, for an earlier one covers it. Numbers count from 1. */
export interface Shadow {
  readonly rule: number
  readonly by: number
}

/** Which rule wins for a packet, and why those before it do not. */
export interface Explanation {
  /** From 1; 0 is the default. */
  readonly rule: number
  readonly action: Action
  /** For each rule before the winner, and the winner: the fields that speak against it. */
  readonly against: readonly { readonly rule: number; readonly fields: readonly FieldName[] }[]
}

export interface ReplaceOptions {
  /** What applies where no rule matches. Default: `proxy`. */
  readonly default?: Action | undefined
  /** Ends the connections that the new rules decide differently, with a reset. Otherwise they keep their decision. */
  readonly reset?: boolean
}

/** The rules in force. */
export interface Rules {
  readonly list: RuleList
  /** Rules that can never match. */
  readonly shadowed: readonly Shadow[]
  /**
   * Puts another list in force, as a whole: each packet is judged by the old list or by the new one, and no connection
   * fails. Throws `E_RULE`, and then nothing has changed. Blocks for about 0.3 s with 10 000 rules.
   */
  replace(rules: readonly (Rule | string)[], options?: ReplaceOptions): void
  /** By number, the default's first. They begin anew with every {@link replace}. */
  counts(): readonly RuleCount[]
  /** {@link counts}, every second while subscribed. */
  readonly counted: Observable<readonly RuleCount[]>
  /** Hot; completes on close. What the kernel could not hold is missing. */
  readonly logged: Observable<RuleEvent>
  /** From the tables that the kernel looks up. */
  explain(packet: Packet): Explanation
}
