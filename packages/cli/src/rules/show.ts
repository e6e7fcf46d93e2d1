import { styleText } from 'node:util'
import { ask } from '../control/client.ts'
import type { RulesState } from '../control/protocol.ts'
import type { Ending } from '../ending.ts'
import { jsonLine } from '../json-line.ts'
import { Output } from '../output.ts'
import { formatBytes } from '../quantities.ts'

/** From the top of the screen, what was there is overwritten. */
const fromTop = '\u001b[H\u001b[J'

/** `tproxy-run rules [--watch]`. */
export async function showRules(
  options: { watch: boolean; pid?: number; json: boolean },
  states: AsyncIterable<RulesState> = ask({ request: options.watch ? 'watch' : 'rules' }, options.pid),
): Promise<Ending> {
  const output = new Output(1)
  // Who read enough, such as head(1), has ended us.
  output.whenUnread(() => process.exit(0))
  for await (const state of states) {
    const text = options.json ? jsonLine({ event: 'rules', ...state }) : rulesTable(state, output.colour)
    output.line(options.watch && output.colour && !options.json ? fromTop + text : text)
  }
  await output.end()
  return { code: 0 }
}

/** One line each, the default's last. */
export function rulesTable(state: RulesState, colour: boolean): string {
  const by = new Map(state.shadowed.map((shadow) => [shadow.rule, shadow.by]))
  const rows = [
    ['#', 'packets', 'bytes', 'rule'],
    ...state.rules.map(({ number, packets, bytes, rule }) => {
      const cover = by.get(number)
      const note = cover === undefined ? '' : `  (never matches: rule ${cover} covers it)`
      return [`${number}`, `${packets}`, formatBytes(bytes), `${rule}${note}`]
    }),
    ['', `${state.default.packets}`, formatBytes(state.default.bytes), `default ${state.default.action}`],
  ]
  const width = (column: number) => Math.max(...rows.map((row) => row[column]?.length ?? 0))
  const widths = [width(0), width(1), width(2)]
  const lines = rows.map((row) =>
    row.map((cell, column) => (column < 3 ? cell.padStart(widths[column] ?? 0) : cell)).join('  '),
  )
  const [head = '', ...rest] = lines
  return [colour ? styleText('dim', head, { validateStream: false }) : head, ...rest].join('\n')
}
