import { mkdirSync } from 'node:fs'
import { cgroupRoot } from '@tproxy/core'

/** The cgroup below which all hosts of this test process have theirs. */
export const testCgroup: string = `${cgroupRoot()}/tproxy-test-${process.pid}`

let made = 0

/** Makes the cgroup of a host. The host's keeper removes it. */
export function makeHostCgroup(name: string): string {
  const path = `${testCgroup}/${name}-${++made}`
  mkdirSync(path, { recursive: true })
  return path
}

/** As /proc/PID/cgroup has it. */
export function withinHierarchy(path: string): string {
  return path.slice(cgroupRoot().length)
}
