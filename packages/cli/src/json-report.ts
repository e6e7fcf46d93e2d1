import {
  type Adopted,
  type Endpoint,
  type RuleEvent,
  reason,
  type Session,
  type SessionEnd,
} from '@tproxy/core'
import type { Reloaded } from './control/protocol.ts'
import type { Ending } from './ending.ts'
import { failure } from './finding.ts'
import { jsonLine } from './json-line.ts'
import type { Options } from './options.ts'
import type { Output } from './output.ts'
import type { Ready, Report } from './report.ts'
import { scrub } from './scrub.ts'

/** Stands where events were lost, because nobody read in time. */
export const jsonLost = (lines: number): string =>
  JSON.stringify({ event: 'lost', time: new Date().toISOString(), lines })

/** One JSON object per line and event, for programs. */
export class JsonReport implements Report {
  readonly #output: Output
  readonly #quiet: boolean

  constructor(output: Output, verbosity: Options['verbosity']) {
    this.#output = output
    this.#quiet = verbosity === 'quiet'
  }

  ready(ready: Ready): void {
    this.#emit('ready', { pid: process.pid, ...ready })
  }

  started(session: Session): void {
    if (!this.#quiet) this.#emit('session-start', describe(session))
  }

  ended(session: Session): void {
    const { bytes, durationMs, end, carried, notSpliced } = session
    if (this.#quiet) return
    this.#emit('session-end', {
      ...describe(session),
      bytes,
      durationMs: Math.round(durationMs * 1000) / 1000,
      carried,
      ...(notSpliced !== undefined && { notSpliced }),
      end: describeEnd(end),
    })
  }

  adopted(connection: Adopted): void {
    if (!this.#quiet) this.#emit('adopted', describeAdopted(connection))
  }

  adoptedEnded(connection: Adopted, end: SessionEnd): void {
    const { bytes } = connection
    if (!this.#quiet)
      this.#emit('adopted-end', { ...describeAdopted(connection), bytes, end: describeEnd(end) })
  }

  rule(event: RuleEvent): void {
    if (this.#quiet) return
    const [source, destination] = [place(event.source), place(event.destination)]
    this.#emit('rule', { ...event, source, destination, time: event.time.toISOString() })
  }

  reloaded(reloaded: Reloaded): void {
    if (!this.#quiet) this.#emit('reloaded', reloaded)
  }

  warning(message: string): void {
    if (!this.#quiet) this.#emit('warning', { message })
  }

  exit(ending: Ending, error?: unknown): void {
    this.#emit('exit', { ...ending, ...(error !== undefined && { error: failure(error) }) })
  }

  close(): Promise<void> {
    return this.#output.end()
  }

  #emit(event: string, fields: object): void {
    this.#output.line(jsonLine({ event, time: new Date().toISOString(), ...fields }, scrub))
  }
}

function describe({ connection, verdict, plugin, upstream }: Session): object {
  return {
    id: connection.id,
    source: place(connection.source),
    destination: place(connection.destination),
    name: connection.peeked?.name,
    process: connection.process,
    interface: connection.interface,
    rule: connection.rule,
    verdict: verdict.kind,
    plugin,
    upstream,
  }
}

function describeEnd(end: SessionEnd | undefined): object {
  return {
    how: end?.how,
    by: end?.by,
    ...(end?.error && { error: reason(end.error), code: (end.error as NodeJS.ErrnoException).code }),
  }
}

const describeAdopted = ({ source, destination, upstream }: Adopted) => ({
  source: place(source),
  destination: place(destination),
  upstream: place(upstream),
})

const place = ({ address, port }: Endpoint) => ({ address, port })
