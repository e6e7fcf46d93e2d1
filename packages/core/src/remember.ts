import { TproxyError } from './errors.ts'

/** A day. What is to hold for longer is a rule. */
const longestMs = 86_400_000

/** That a verdict holds for later connections too, which the kernel then decides without asking. */
export interface Remember {
  /** Milliseconds, up to a day. */
  readonly ttl: number
  /**
   * What later connections have in common with this one, besides the user who runs the program and the rule that had it
   * proxied: the `destination`'s address and port (the default), or its `address` alone. Not its program, nor the interface: a
   * verdict that depends on more than this is not one to remember.
   */
  readonly by?: 'destination' | 'address'
  /**
   * Remembers even though the connection was peeked at. The kernel sees addresses, and many names may share one: without this,
   * such a verdict holds for its own connection only.
   */
  readonly whateverName?: boolean
}

/** A verdict that the kernel remembers. */
export interface Remembered {
  readonly verdict: 'direct' | 'drop'
  readonly address: string
  /** Undefined: all of the address. */
  readonly port: number | undefined
  /** Whose connections it decides. */
  readonly uid: number
  /** The number of the rule that sends them to the plugin; 0 is the default. */
  readonly rule: number
  readonly until: Date
  /** How many it has decided. */
  readonly hits: number
}

/** Throws `E_OPTION` for what cannot be remembered so. Verdicts may be plain data that nothing has checked before. */
export function checkRemember(how: Remember, transform?: unknown): void {
  const { ttl, by = 'destination' } = Object(how) as Remember
  if (!(ttl > 0 && ttl <= longestMs))
    throw new TproxyError('E_OPTION', `remember: ttl is ${ttl}`, { hint: 'give milliseconds, up to a day' })
  if (by !== 'destination' && by !== 'address')
    throw new TproxyError('E_OPTION', `remember: by is ${String(by)}`, { hint: "'destination' or 'address'" })
  if (transform !== undefined)
    throw new TproxyError('E_OPTION', 'remember with transform', {
      hint: 'the kernel transforms nothing: leave out one of them',
    })
}
