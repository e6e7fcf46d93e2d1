// What `nft -j list ruleset` prints, as far as we read it (libnftables-json(5)).

export interface Chain {
  readonly family: string
  readonly table: string
  readonly name: string
  readonly hook?: string
  readonly policy?: string
}

export interface Rule {
  readonly family: string
  readonly table: string
  readonly chain: string
  readonly expr: readonly Expression[]
}

/** One statement, such as `{ match: … }`, `{ accept: null }`, `{ jump: { target } }`. */
export type Expression = Readonly<Record<string, unknown>>

export interface Match {
  readonly op: string
  readonly left: Readonly<Record<string, unknown>> | string
  readonly right: unknown
}

export interface Ruleset {
  readonly chains: readonly Chain[]
  readonly rules: readonly Rule[]
}

export function parseRuleset(json: string): Ruleset {
  const { nftables } = JSON.parse(json) as { nftables: { chain?: Chain; rule?: Rule }[] }
  return {
    chains: nftables.flatMap(({ chain }) => chain ?? []),
    rules: nftables.flatMap(({ rule }) => rule ?? []),
  }
}
