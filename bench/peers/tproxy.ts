import { enclosed, type Program } from '../../test/rig/host.ts'
import { tproxyRun, type World } from '../../test/rig/world.ts'
import { file, pinned, type Route, type Side, upstream } from '../compare/side.ts'

async function start(world: World, args: readonly string[]): Promise<Program> {
  const words = [...pinned, ...enclosed, ...tproxyRun, '-i', 'wan0', '--json', '-q', ...args]
  const program = world.client.spawn('taskset', words)
  await program.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line', 15_000)
  const ready = program.events.find(({ event }) => event === 'ready')
  // Where the kernel does not allow it, it would be measured without.
  if (args.includes('--fastpath') && ready.fastpath?.mode !== 'both')
    throw new Error(`no fastpath: ${JSON.stringify(ready.fastpath)}`)
  return program
}

const carriers = {
  splice: [],
  relay: ['--carry', 'relay'],
  'relay, fastpath': ['--carry', 'relay', '--fastpath', 'both'],
}
const plugins: Partial<Record<Route, readonly string[]>> = {
  origin: [],
  socks: ['-p', `socks=socks5://${upstream}:1080`],
  http: ['-p', `http=http://${upstream}:3128`],
}

export const tproxy: readonly Side[] = [
  ...Object.entries(plugins).flatMap(([route, plugin]) =>
    Object.entries(carriers).map(([carrier, options]): Side => {
      const args = [...options, ...plugin]
      return {
        name: `tproxy ${carrier}`,
        route: route as Route,
        setup: `\`${['tproxy-run', '-q', '-i', 'wan0', ...args].join(' ')}\``,
        start: (world) => start(world, args),
        // Silent, a spliced one has only the socket that keeps its port.
        ...(carrier !== 'relay, fastpath' && { descriptors: carrier === 'splice' ? 1 : 2 }),
      }
    }),
  ),
  {
    name: 'tproxy, rule direct',
    route: 'alone',
    setup: "`tproxy-run -q -i wan0 --rule 'direct to 203.0.113.0/24'`",
    start: (world) => start(world, ['--rule', 'direct to 203.0.113.0/24']),
  },
  {
    name: 'tproxy, unmatched',
    route: 'alone',
    setup: '`tproxy-run -q -i wan0 --rules FILE` with `proxy tcp dport 1` and `default direct`',
    start: (world, stack) =>
      start(world, ['--rules', file(stack, 'unmatched.rules', 'default direct\nproxy tcp dport 1\n')]),
  },
]
