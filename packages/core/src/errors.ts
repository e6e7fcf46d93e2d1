import { inspect } from 'node:util'

/**
 * Stable names for what can go wrong; match on `error.code`, never on the message.
 *
 * - `E_OPTION` an option is missing, malformed or contradicts another
 * - `E_RULE` a rule does not parse
 * - `E_PRIVILEGE` a capability is missing
 * - `E_KERNEL` the kernel lacks a feature
 * - `E_LIBRARY` a native library is missing
 * - `E_INTERFACE` a network interface is missing or unusable
 * - `E_CLASH` the routing mark, table or priority belongs to somebody else
 * - `E_BUSY` another instance already intercepts this
 * - `E_LOOP` an upstream's own connections could not be exempted
 * - `E_UPSTREAM` an upstream refused, failed or answered nonsense
 * - `E_PLUGIN` a plugin threw, returned no verdict, or could not be loaded
 * - `E_TIMEOUT` a deadline passed
 * - `E_STATE` an operation came too late, such as settling a connection twice
 * - `E_SYSTEM` a command or system call failed
 */
export type ErrorCode =
  | 'E_OPTION'
  | 'E_RULE'
  | 'E_PRIVILEGE'
  | 'E_KERNEL'
  | 'E_LIBRARY'
  | 'E_INTERFACE'
  | 'E_CLASH'
  | 'E_BUSY'
  | 'E_LOOP'
  | 'E_UPSTREAM'
  | 'E_PLUGIN'
  | 'E_TIMEOUT'
  | 'E_STATE'
  | 'E_SYSTEM'

/** The error every part of tproxy throws: `message` names operation, object and cause, `hint` the remedy. */
export class TproxyError extends Error {
  override readonly name = 'TproxyError'
  readonly code: ErrorCode
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(options.hint === undefined ? message : `${message} (${options.hint})`, { cause: options.cause })
    this.code = code
    this.hint = options.hint
  }
}

/** The text of anything that was thrown, on one line. */
export function reason(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return error.errors.map(reason).join('; ')
  // Only from where spaces begin: peers choose texts, and each of many spaces would be tried anew.
  return (error instanceof Error ? error.message : textOf(error)).replaceAll(/(?<!\s)\s*\n\s*/g, ' ')
}

/** Not all has one: an object without a prototype throws. */
function textOf(value: unknown): string {
  try {
    return String(value)
  } catch {
    return inspect(value)
  }
}

/** @internal A program has given up on a connection before it was established. */
export class GaveUp extends Error {
  override readonly name = 'GaveUp'

  constructor() {
    super('the program has given up')
  }
}
