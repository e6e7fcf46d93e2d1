/** The local program that opened a connection, as it was when it did. */
export interface ProcessInfo {
  readonly pid: number
  /** The kernel's short name of the process: at most 15 characters. */
  readonly name: string
  readonly uid: number
  readonly gid: number
  /** Path within the cgroup v2 hierarchy, such as `/user.slice/session-3.scope`; undefined once it is gone. */
  readonly cgroup: string | undefined
}
