// Tries the kernel once for all tests: each of their hosts has a /run of its own, and would have every first start do it.
import { Host } from './host.ts'
import { tproxyRun } from './world.ts'

export async function setup(): Promise<void> {
  await using host = await Host.create('trial')
  const [node, ...args] = tproxyRun
  await host.run(node, [...args, 'doctor'])
  process.env['RIG_TRIAL'] = await host.sh('cat /run/tproxy/trial.json')
}
