import {
  type Adopted,
  type FastpathState,
  type RuleEvent,
  reason,
  type Session,
  type SessionEnd,
  type TransparentProxy,
} from '@tproxy/core'
import type { Reloaded } from './control/protocol.ts'
import type { Ending } from './ending.ts'
import { HumanReport } from './human-report.ts'
import type { CommandForm, InterfaceForm } from './invocation.ts'
import { JsonReport, jsonLost } from './json-report.ts'
import { Output } from './output.ts'

/** What is worth knowing once interception is on. */
export interface Ready {
  readonly interfaces: readonly string[]
  readonly cgroup: string | undefined
  readonly plugins: readonly { readonly name: string; readonly upstreams: readonly string[] }[]
  readonly rules: number
  readonly default: 'direct' | 'drop'
  /** How many connections of an earlier process are taken over. */
  readonly adopted: number
  readonly fastpath: FastpathState
}

/** Tells somebody what happens. */
export interface Report {
  ready(ready: Ready): void
  started(session: Session): void
  ended(session: Session): void
  /** An earlier process left this connection to the kernel, and it is ours now. */
  adopted(connection: Adopted): void
  adoptedEnded(connection: Adopted, end: SessionEnd): void
  /** A rule that is to be reported decided something. */
  rule(event: RuleEvent): void
  reloaded(reloaded: Reloaded): void
  warning(message: string): void
  /** With `error`, this is why. */
  exit(ending: Ending, error?: unknown): void
  /** Resolves when all is written. */
  close(): Promise<void>
}

/** In command form standard output is the command's, and everything of ours goes to standard error. */
export function makeReport({ form, options }: CommandForm | InterfaceForm): Report {
  const fd = form === 'command' ? 2 : 1
  if (options.json) return new JsonReport(new Output(fd, jsonLost), options.verbosity)
  const events = new Output(fd)
  const level = { quiet: 0, normal: form === 'command' ? 1 : 2, verbose: 2 }[options.verbosity]
  return new HumanReport(events, form === 'command' ? events : new Output(2), level)
}

/** Reports everything a proxy does. */
export function follow(proxy: TransparentProxy, report: Report): void {
  const { problem } = proxy.fastpath
  if (problem !== undefined) report.warning(`fastpath is off: ${problem}`)
  proxy.warnings.subscribe((message) => report.warning(message))
  proxy.rules?.logged.subscribe((event) => report.rule(event))
  for (const connection of proxy.adopted) {
    report.adopted(connection)
    void connection.ended.then((end) => report.adoptedEnded(connection, end))
  }
  proxy.sessions.subscribe((session) => {
    report.started(session)
    session.ended.then(
      () => report.ended(session),
      (error: unknown) => report.warning(reason(error)),
    )
  })
}
