/** What the first bytes of a program say so far. */
export interface Guess {
  readonly protocol: 'tls' | 'http' | undefined
  readonly name?: string | undefined
  /** Whether further bytes can say more. */
  readonly more: boolean
}
