import type { Machine } from './machine.ts'
import type { Route } from './side.ts'

/** One run on one side. */
export interface Sample {
  /** Bytes, exchanges or connections a second. */
  readonly rate: number
  /** Microseconds: of an exchange, or to the first byte. */
  readonly p50: number
  readonly p99: number
  /** Seconds of processor time of the whole machine, interrupts included, for a gigabyte, exchange or connection. */
  readonly cpu: number
  /** The part of it in softirq. */
  readonly softirq: number
  readonly retransmits: number
}

export interface Traffic {
  readonly route: Route
  readonly workload: string
  readonly side: string
  readonly rounds: readonly Sample[]
  /** Why there are no more rounds. */
  readonly failed?: string
}

export interface Held {
  readonly side: string
  readonly connections: number
  /** Of them, those that carried 64 bytes there and back at the end. */
  readonly succeeded: number
  /** Resident, of the proxy's process, before and with them. */
  readonly beforeKb: number
  readonly afterKb: number
  /** Of the machine's kernel, more than before: sockets of the ends too. */
  readonly slabKb: number
}

export interface SideResult {
  readonly name: string
  readonly route: Route
  readonly setup: string
  readonly version?: string
  /** Why it was not measured at all. */
  readonly absent?: string
}

export interface Results {
  readonly machine: Machine
  readonly quick: boolean
  readonly rounds: number
  readonly roundMs: number
  readonly minutes: number
  readonly sides: readonly SideResult[]
  readonly traffic: readonly Traffic[]
  /** Milliseconds until it can be used. */
  readonly startUp: readonly {
    readonly side: string
    readonly first: number
    readonly ms: readonly number[]
  }[]
  readonly held: readonly Held[]
  /** What time did not suffice for, and what failed by itself. */
  readonly notes: readonly string[]
}
