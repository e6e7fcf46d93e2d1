import { answerFlags, type Flags, flags } from '../options.ts'

const names = ['interface', 'config', 'mark', 'table', 'priority', 'fastpath']

/** Those of interception that change what a machine needs. */
export const doctorFlags: Flags = {
  ...Object.fromEntries(Object.entries(flags).filter(([name]) => names.includes(name))),
  ...answerFlags,
}
