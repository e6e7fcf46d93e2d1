import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Observable } from 'rxjs'
import type { Endpoint } from './endpoint.ts'
import type { FastpathState } from './options.ts'
import type { ProcessInfo } from './process.ts'
import type { Remember, Remembered } from './remember.ts'
import type { Rules } from './rules/control.ts'
import type { SessionEnd } from './session.ts'
import type { TraceStep, TraceTarget } from './trace.ts'

/** A stream that is made when it is asked for: a connection that the kernel carries needs none. */
export interface LazyStream {
  /** The same each time, until the connection is spliced. */
  readonly stream: Duplex
  /** Ends the connection at once, with a reset where it can be. */
  reset(): void
  /** From now on closing it resets it, so that a crash does not look like a clean end. */
  resetOnClose?(): void
  /** Takes that back. */
  closeInOrder?(): void
}

/** A connection as a transport delivers it: accepted, or about to be, paused, and with its original destination. */
export interface Accepted {
  /**
   * Paused, with `allowHalfOpen`; with keep-alive, and without delay, where it is a real one. May be made, and the connection
   * accepted, when asked for.
   */
  readonly socket: Socket
  readonly source: Endpoint
  readonly destination: Endpoint
  readonly interface?: string | undefined
  readonly process?: ProcessInfo | undefined
  /** Number of the rule that said proxy, from 1. */
  readonly rule?: number | undefined
  /** Name of the plugin that this rule wants to be asked. */
  readonly via?: string | undefined
  /** Of its first packet, as rules see it. */
  readonly mark?: number | undefined
  readonly dscp?: number | undefined
  /**
   * Accepts it, where its program waits for that still: to be called before somebody wants its socket, and needs not wait. Rejects
   * when the program has given up. Undefined where there is nothing to wait for.
   */
  accept?(): Promise<void> | undefined
  /** Calls back when its program gives up before it was accepted, at once if it has; the last callback only. */
  whenGone?(callback: () => void): void
  /**
   * Opens the connection the program wanted, from where it wanted it; `isRead` says that somebody wants to see its bytes. Throws,
   * or rejects, when refused or aborted.
   */
  direct(signal: AbortSignal, isRead: boolean): Duplex | LazyStream | Promise<Duplex | LazyStream>
  /** Ends it with a reset, or has the program hear that it is refused, where it was not accepted. Default: `socket.resetAndDestroy()`. */
  reset?(): void
  /** Until this is called, closing the socket resets the connection, so that a crash does not look like a clean end. */
  closeInOrder?(): void
  /**
   * Has the kernel decide so about later connections that are like this one, as {@link Remember} says. Undefined when the rules
   * that this one came by were replaced meanwhile: then it has not.
   */
  remember?(verdict: Remembered['verdict'], how: Remember): Remembered | undefined
  /** To be called when this process reads the socket itself, to its end: bytes may then come by a shorter way. */
  accelerate?(): void
  /** To be called when the kernel carries it, for long perhaps: what only a beginning needs is let go. */
  letGo?(): void
}

/** Hears what becomes of a connection that the kernel carries. Nothing is called before `splice` has returned. */
export interface SpliceListener {
  /** Milliseconds without a packet after which it is ended; 0 for never. */
  readonly idleMs: number
  /** The same once one direction has ended. */
  readonly halfClosedMs: number
  /** Called at most once: there are bytes, or an end, that streams have to relay, until `silent`. */
  relay(upstream: Duplex): void
  /** Called at most once: the kernel carries all, and streams are closed without a word. */
  silent(): void
  /** Called once, when it has ended, unless the relay has ended before. */
  ended(end: SessionEnd): void
}

/** A connection that the kernel carries, or will when what our sockets still hold is delivered. */
export interface Splice {
  /** Payload so far, in both directions, by the kernel and by the relay. */
  readonly bytes: { readonly sent: number; readonly received: number }
  /**
   * Resets both ends, by the numbers that they go by. Does nothing where those are still our sockets': a relay, if there is one,
   * then resets these.
   */
  abort(end: SessionEnd): void
  /** The relay has ended by itself: there is nothing left to carry. */
  release(): void
  /** Has it outlive this process, if it can: its end is then `kept`. */
  leave(): void
}

/** A connection that an earlier process spliced, and the kernel carries on. */
export interface Adopted extends Pick<Splice, 'bytes' | 'abort'> {
  readonly source: Endpoint
  /** Where the program wanted to go. */
  readonly destination: Endpoint
  /** Where the connection leads: the same, or a proxy. */
  readonly upstream: Endpoint
  /** Whether it has not ended. */
  readonly lasts: boolean
  /** Resolves when it has ended; never rejects. */
  readonly ended: Promise<SessionEnd>
}

/** Verdicts that the kernel remembers. */
export interface Memories {
  /** How many connections they decided, those that no longer hold too. */
  readonly recalled: number
  /** Those that hold now. Reads them all from the kernel. */
  list(): readonly Remembered[]
  /** Plugins are asked again about what this one decides. Nothing happens when it no longer holds. */
  forget(memory: Remembered): void
  /** Plugins are asked again about everything. */
  clear(): void
}

/**
 * Where connections come from. Ours is interception at the traffic-control hooks; a test makes them in memory, and yours
 * may take them from an iptables TPROXY port or an inherited socket.
 */
export interface Transport {
  /** Hot; never errors. */
  readonly accepted: Observable<Accepted>
  /** Problems that cost no more than a connection, as messages for people. */
  readonly warnings?: Observable<string>
  /** The rules that decide what is accepted. */
  readonly rules?: Rules
  /** Accepted connections that the rules would no longer accept, or not for the same plugin. */
  readonly outdated?: Observable<(accepted: Accepted) => boolean>
  /** Makes sure that whoever listens at this address, if it is on this host, does not have its connections intercepted. */
  exempt?(address: { host: string; port: number }): Promise<void>
  /**
   * Has the kernel carry a connection together with the one to its upstream, if it can. Else says why not, in a few words;
   * the connection is then to be relayed.
   */
  splice?(accepted: Accepted, upstream: LazyStream, listener: SpliceListener): Splice | string
  /** Names of the interfaces whose connections are taken now. */
  readonly interfaces?: readonly string[]
  /** What earlier processes have left to the kernel, and this one takes care of. */
  readonly adopted?: readonly Adopted[]
  readonly fastpath?: FastpathState
  /** What `Accepted.remember` brought about. */
  readonly memories?: Memories
  /** Packets by program and by what became of them there, so far. */
  counters?(): Readonly<Record<string, Readonly<Record<string, bigint>>>>
  /** What the kernel does with each packet of a destination, while subscribed to. */
  trace?(target: TraceTarget): Observable<TraceStep>
  /** Takes nothing new; what was accepted still works. */
  stop(): void
  /** Undoes everything. */
  close(): Promise<void>
}
