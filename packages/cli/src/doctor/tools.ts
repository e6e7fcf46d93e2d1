import { accessSync, constants } from 'node:fs'
import { cgroupRoot, type Inspection, reason } from '@tproxy/core'
import { findTool } from '../executable.ts'
import { attempt, type Check, missing, ok, warn } from './check.ts'

export function toolChecks(inspection: Inspection): Check[] {
  return [
    attempt('libbpf', 'apt-get install libbpf1', () => inspection.libbpf()),
    attempt('steering programs', 'see the message', () => {
      inspection.programs()
      return 'the kernel accepts them'
    }),
    checkSplice(inspection),
    attempt('cgroup v2', 'mount it writable, or run as root', () => {
      const root = cgroupRoot()
      accessSync(root, constants.W_OK)
      return root
    }),
    tool('ip', 'iproute2'),
    tool('setpriv', 'util-linux'),
  ]
}

function checkSplice(inspection: Inspection): Check {
  try {
    inspection.splice()
    return ok('splice programs', 'the kernel accepts them')
  } catch (error) {
    return warn('splice programs', reason(error), 'connections are relayed by the process, which is slower')
  }
}

function tool(name: string, fromPackage: string): Check {
  const path = findTool(name)
  return path === undefined ? missing(name, 'not found', `apt-get install ${fromPackage}`) : ok(name, path)
}
