import { nearest } from '@tproxy/core'
import { subcommands } from './manual/commands.ts'

/** What was probably meant by the name of a program that is not there. */
export function meantCommand(name: string): string | undefined {
  if (name === 'help' || name === 'version') return `see tproxy-run --${name}`
  const near = nearest(name, Object.keys(subcommands))
  return near && `did you mean ${near}?`
}
