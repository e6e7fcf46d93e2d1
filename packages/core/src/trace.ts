import type { Endpoint } from './endpoint.ts'

/** Whose packets are traced, both ways. */
export interface TraceTarget {
  /** Of the destination, as programs see it. */
  readonly address: string
  /** Default: all. */
  readonly port?: number
}

/** What one of our programs in the kernel did with one packet. */
export interface TraceStep {
  /** From 1; where one is left out, steps were lost, because there were more than could be taken. */
  readonly number: number
  /** When the hook was left, in milliseconds since 1970, with fractions: to the nanosecond of the kernel's clock. */
  readonly timeMs: number
  /**
   * In the order in which a packet of a program meets them: `splice_egress` and `wan_egress` where it leaves, `lo_ingress`
   * before our socket. On the way back: `splice_ingress` where it arrives, `splice_loopback` and `lo_egress` behind our
   * socket. What was spliced meets the first of each way only.
   */
  readonly hook: TraceHook
  /** Where the hook is. */
  readonly interface: string
  /** By its IANA number. */
  readonly protocol: number
  /** Of TCP, such as `SYN`. */
  readonly flags: readonly string[]
  readonly source: Endpoint
  readonly destination: Endpoint
  /** What it was made into: translated, by splice, or its answer, where it is rejected. */
  readonly became?: {
    readonly source: Endpoint
    readonly destination: Endpoint
    readonly flags: readonly string[]
  }
  /** In bytes, from the link layer header on. */
  readonly length: number
  /**
   * `next`: left to the next program, or to the network stack; `sent`: on its way, and no other program is asked; `redirected`:
   * to another interface, or another direction; `dropped`.
   */
  readonly decision: 'next' | 'sent' | 'redirected' | 'dropped'
  /** Why, as `counters()` and contract.h name it; none where the packet is not for this hook. */
  readonly reasons: readonly string[]
  /** The rule that decided it, from 1; 0 is the default. Undefined where none was asked. */
  readonly rule?: number
}

export type TraceHook =
  | 'wan_egress'
  | 'lo_ingress'
  | 'lo_egress'
  | 'splice_egress'
  | 'splice_loopback'
  | 'splice_ingress'
