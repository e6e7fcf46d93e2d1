/** What the kernel does with a connection, or with a packet of another protocol. */
export type Action =
  /** To the listener, and on to the plugins. TCP only: a packet of another protocol is never matched by it. */
  | 'proxy'
  /** Untouched: it never enters userspace. */
  | 'direct'
  /** Gone, without an answer. */
  | 'drop'
  /** Gone, and the program hears of it at once: a TCP reset, or ICMP port unreachable. */
  | 'reject'
  /** Out of another interface, to the next hop that the routes name there. */
  | `redirect:${string}`
  /** Into another interface, as if it had received the packet. */
  | `redirect-into:${string}`

/** One value, or several of which one has to match. */
export type OneOf<T> = T | readonly T[]

/** What a rule looks at; all that is given must match, and what is not given matches everything. */
export interface Criteria {
  /** `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, … or the number of the protocol. */
  readonly protocol?: OneOf<string | number> | undefined
  /** The IP version. */
  readonly ip?: 4 | 6 | undefined
  /** Source address: `10.0.0.0/8`, `2001:db8::1`, or an inclusive range `10.0.0.1-10.0.0.9`; families may be mixed. */
  readonly from?: OneOf<string> | undefined
  /** Destination address, written like `from`. */
  readonly to?: OneOf<string> | undefined
  /** Source port: `443`, or an inclusive range `8000-8999`. Matches protocols that have ports only. */
  readonly sport?: OneOf<number | string> | undefined
  /** Destination port, written like `sport`. */
  readonly dport?: OneOf<number | string> | undefined
  /** Name of the interface that the packet leaves by. */
  readonly interface?: OneOf<string> | undefined
  /** User of the program: a number, a range `1000-1999`, or a name. */
  readonly uid?: OneOf<number | string> | undefined
  /** Group of the program, written like `uid`. */
  readonly gid?: OneOf<number | string> | undefined
  /** A cgroup v2 path below the mount (`/user.slice`) or a systemd unit (`ssh.service`), with all that is below it. */
  readonly cgroup?: OneOf<string> | undefined
  /** Name of the program's process, as the kernel has it: at most 15 characters. */
  readonly process?: OneOf<string> | undefined
  /** The packet's mark (SO_MARK of the program's socket): a number, `0x10`, or a range. */
  readonly mark?: OneOf<number | string> | undefined
  /** The six bits of RFC 2474: a number, a range, or a name (`ef`, `cs1`, `af41`). */
  readonly dscp?: OneOf<number | string> | undefined
}

/** One rule of an ordered list: the first that matches decides. */
export interface Rule extends Criteria {
  readonly action: Action
  /** Must not match. A packet that lacks the field, such as a port or a known user, does not match either way. */
  readonly not?: Criteria | undefined
  /** With `proxy`: name of the plugin that decides; the others are not asked. */
  readonly via?: string | undefined
  /** Reports every connection, or packet of another protocol, that this rule decides. */
  readonly log?: boolean | undefined
}

/** An ordered list, and what applies where none of it matches. */
export interface RuleList {
  readonly rules: readonly Rule[]
  /** Where no rule matches. Default: `proxy`, which leaves what is not TCP alone. */
  readonly default: Action
}
