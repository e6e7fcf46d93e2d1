/** Inclusive ranges, ascending, disjoint and not adjacent. None: never matches. */
export type Ranges = readonly (readonly [low: bigint, high: bigint])[]

/** Another interface, as it is now. */
export interface RedirectTarget {
  readonly ifindex: number
  /** undefined: packets have no link layer header there. */
  readonly mac: Uint8Array | undefined
  /** Next hop of its IPv6 default route, 16 bytes. */
  readonly gateway: Uint8Array | undefined
  /** As if received there, instead of sent. */
  readonly into: boolean
}

/** What a rule demands of one field; an absent condition holds for everything, also where the field is unknown. */
export interface Conditions {
  /** Destination of IPv4 packets, as 32-bit numbers. A rule for IPv6 only has none of them. */
  readonly to4?: Ranges
  /** Destination of IPv6 packets, as 128-bit numbers. */
  readonly to6?: Ranges
  readonly from4?: Ranges
  readonly from6?: Ranges
  readonly protocol?: Ranges
  readonly sport?: Ranges
  readonly dport?: Ranges
  /** By ifindex, or as `missingInterface` has it. */
  readonly interface?: Ranges
  readonly uid?: Ranges
  readonly gid?: Ranges
  readonly mark?: Ranges
  readonly dscp?: Ranges
  /** The name's bytes, padded with zeros to 16, as one number, the first byte the most significant. */
  readonly process?: Ranges
  /** Cgroups by id: below one of `anyOf` (unless absent) and below none of `noneOf`. */
  readonly cgroup?: { readonly anyOf?: readonly bigint[]; readonly noneOf: readonly bigint[] }
}

/** A rule whose names have become numbers and whose negations have become ranges. */
export interface ResolvedRule extends Conditions {
  readonly action: 'proxy' | 'direct' | 'drop' | 'reject' | 'redirect'
  readonly redirect?: RedirectTarget
  readonly log: boolean
}

/** A list, ready to be compiled. */
export interface ResolvedList {
  readonly rules: readonly ResolvedRule[]
  /** Where none matches. */
  readonly fallback: ResolvedRule
  /** Of each cgroup that a rule names: its id and those above it. */
  readonly cgroups: ReadonlyMap<bigint, readonly bigint[]>
}
