import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import type { Host, Program } from './host.ts'

const script = fileURLToPath(new URL('terminal.py', import.meta.url))

/** A command on a terminal of 24 lines of 80 columns; see terminal.py. */
export function onTerminal(host: Host, command: readonly string[]): Program {
  return host.spawn('python3', [script, ...command], { env: { TERM: 'xterm' } })
}

export function tell(
  terminal: Program,
  line: { keys: string } | { size: [rows: number, columns: number] } | { hangUp: true },
): void {
  terminal.child.stdin?.write(`${JSON.stringify(line)}\n`)
}

/** What a program that draws from the top of the screen has drawn last, and completely. */
export function screen({ stdout }: Program): string[] {
  const end = stdout.lastIndexOf('\u001b[J')
  const begin = stdout.lastIndexOf('\u001b[H', end)
  return stripVTControlCharacters(stdout.slice(begin, end)).split('\r\n')
}
