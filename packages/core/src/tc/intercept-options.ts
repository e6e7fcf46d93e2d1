import type { FastpathMode, Timeouts } from '../options.ts'
import type { Action, Rule } from '../rules/model.ts'
import type { InterfaceSelection } from './interfaces.ts'
import type { RoutingOptions } from './routing.ts'

/** What to intercept. */
export interface InterceptOptions {
  /**
   * Interfaces that connections leave by. Default: `auto`, those with a default route. At most 64. Those that come later,
   * or come back, are added within a second.
   */
  readonly interfaces?: InterfaceSelection
  /**
   * Absolute path of a cgroup v2 directory: only connections of programs in it, and below it, are intercepted. Without it,
   * those of all local programs are, except this process and its descendants.
   */
  readonly cgroup?: string
  /** With `cgroup`: should this process die, everything in the cgroup is killed before it could connect directly. */
  readonly failClosed?: boolean
  /** Asked in order, by the kernel, for each new connection and each packet of another protocol. */
  readonly rules?: readonly (Rule | string)[]
  /** What applies where no rule matches. Default: `proxy`, which leaves what is not TCP alone. */
  readonly defaultAction?: Action
  readonly timeouts?: Timeouts
  /**
   * How decided connections travel: `splice`, in the kernel wherever two connections can be one, or `relay`, in this
   * process. Default: `splice`.
   */
  readonly carry?: 'splice' | 'relay'
  /**
   * Spliced connections outlive this process, however it ends, and the next one with this option in this network namespace
   * takes them over: see `Interception.adopted`. Needs a bpf file system. Default: they end with it, by a reset.
   */
  readonly keepSpliced?: boolean
  /**
   * Which reads skip the network stack on connections that this process carries to their end. Needs Linux 6.13. A kernel
   * that does not do it right has it switched off, with a warning. Default: `off`.
   */
  readonly fastpath?: FastpathMode
  readonly routing?: RoutingOptions
}
