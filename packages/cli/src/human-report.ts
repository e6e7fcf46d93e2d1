import { styleText } from 'node:util'
import type { Adopted, RuleEvent, Session, SessionEnd } from '@tproxy/core'
import type { Reloaded } from './control/protocol.ts'
import { adoptedLine, type Paint, readyLine, reloadedLine, ruleLine, sessionLine } from './lines.ts'
import type { Output } from './output.ts'
import { formatTime } from './quantities.ts'
import type { Ready, Report } from './report.ts'
import { clean } from './scrub.ts'

/** Lines for people. Level 0: nothing but errors; 1: warnings and failures too; 2: all that ends. */
export class HumanReport implements Report {
  readonly #events: Output
  readonly #warnings: Output
  readonly #level: number

  constructor(events: Output, warnings: Output, level: number) {
    this.#events = events
    this.#warnings = warnings
    this.#level = level
  }

  ready(ready: Ready): void {
    if (this.#level >= 2) this.#say(this.#events, (paint) => readyLine(ready, paint))
  }

  started(): void {}

  ended(session: Session): void {
    const how = session.end?.how
    const failed = how === 'failed' || how === 'timeout'
    if (this.#level >= (failed ? 1 : 2)) this.#say(this.#events, (paint) => sessionLine(session, paint))
  }

  adopted(): void {}

  adoptedEnded(connection: Adopted, end: SessionEnd): void {
    if (this.#level >= 2) this.#say(this.#events, (paint) => adoptedLine(connection, end, paint))
  }

  rule(event: RuleEvent): void {
    if (this.#level >= 1) this.#say(this.#events, (paint) => ruleLine(event, paint))
  }

  reloaded(reloaded: Reloaded): void {
    if (this.#level >= 1) this.#say(this.#events, (paint) => reloadedLine(reloaded, paint))
  }

  warning(message: string): void {
    if (this.#level >= 1)
      this.#say(this.#warnings, (paint) => `${paint('yellow', 'warning')}  ${paint('plain', message)}`)
  }

  exit(): void {}

  async close(): Promise<void> {
    await Promise.all([this.#events.end(), this.#warnings.end()])
  }

  #say(output: Output, line: (paint: Paint) => string): void {
    const paint: Paint = (style, text) => {
      const shown = clean(text)
      return output.colour && style !== 'plain' ? styleText(style, shown, { validateStream: false }) : shown
    }
    output.line(`${paint('dim', formatTime(new Date()))} ${line(paint)}`)
  }
}
