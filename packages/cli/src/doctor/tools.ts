import { accessSync, constants } from 'node:fs'
import { type Inspection, reason } from '@tproxy/core'
import { findTool } from '../executable.ts'
import { attempt, type Check, missing, ok, warn } from './check.ts'

export async function toolChecks(inspection: Inspection): Promise<Check[]> {
  return [
    attempt('libbpf', 'apt-get install libbpf1', () => inspection.libbpf()),
    attempt('steering programs', 'see the message', () => {
      inspection.programs()
      return 'the kernel accepts them'
    }),
    await checkSplice(inspection),
    checkCgroup(inspection),
    tool('ip', 'iproute2'),
    tool('setpriv', 'util-linux'),
  ]
}

async function checkSplice(inspection: Inspection): Promise<Check> {
  const remedy = 'connections are relayed by the process, which is slower'
  try {
    inspection.splice()
  } catch (error) {
    return warn('splice', reason(error), remedy)
  }
  try {
    const problem = await inspection.trial()
    return problem === undefined ? ok('splice', 'tried, and right here') : warn('splice', problem, remedy)
  } catch (error) {
    return warn(
      'splice',
      `the kernel accepts its programs; not tried: ${reason(error)}`,
      process.getuid?.() === 0 ? 'see the message' : 'run doctor as root',
    )
  }
}

/** An interface needs none. */
function checkCgroup(inspection: Inspection): Check {
  try {
    const path = inspection.cgroup()
    accessSync(path, constants.W_OK)
    return ok('cgroup v2', path)
  } catch (error) {
    return warn('cgroup v2', reason(error), 'for a command, mount it writable, or run as root')
  }
}

function tool(name: string, fromPackage: string): Check {
  const path = findTool(name)
  return path === undefined ? missing(name, 'not found', `apt-get install ${fromPackage}`) : ok(name, path)
}
