// What tproxy-run prints with --json.
import type { Program } from './host.ts'

/** Of a text whose lines are all JSON. */
// biome-ignore lint: a test knows what was printed
export function parsed(text: string): any[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
}

// biome-ignore lint: a test knows what was printed
export const starts = (text: string): any[] => parsed(text).filter(({ event }) => event === 'session-start')

/** All of one name that a program has printed so far. */
// biome-ignore lint: a test knows what was printed
export const events = (program: Program, name: string): any[] =>
  program.events.filter(({ event }) => event === name)
