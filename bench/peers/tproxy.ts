import { enclosed, type Program } from '../../test/rig/host.ts'
import { dialled, tproxyRun, type World } from '../../test/rig/world.ts'
import { traffic } from '../compare/measure.ts'
import { file, pinned, type Ready, type Route, type Side, upstream } from '../compare/side.ts'

/** Throws unless connections are carried so. */
async function checkCarried(ready: Ready, expected: 'splice' | 'relay'): Promise<void> {
  const { world, pid } = ready
  await using program = world.client.spawn('taskset', traffic(ready, aWhile, 10_000))
  let found: Record<string, number> = {}
  // It is relayed for its first milliseconds.
  for (let attempt = 0; attempt < 5 && found[expected] !== 1; attempt++) {
    const { stdout } = await world.run(['status', '--json', '--pid', `${pid}`], { input: '' }).exited
    found = JSON.parse(stdout).carried
  }
  if (found[expected] !== 1 || program.child.exitCode !== null)
    throw new Error(`not carried by ${expected}: ${JSON.stringify(found)} ${program.stderr}`)
}

async function start(world: World, args: readonly string[]): Promise<Program> {
  const words = [...pinned, ...enclosed, ...tproxyRun, '-i', 'wan0', '--json', '-q', ...args]
  const program = world.client.spawn('taskset', words)
  await program.until(({ events }) => events.some(({ event }) => event === 'ready'), 'a ready line', 60_000)
  const ready = program.events.find(({ event }) => event === 'ready')
  // Where the kernel does not allow it, it would be measured without.
  if (args.includes('--fastpath') && ready.fastpath?.mode !== 'both')
    throw new Error(`no fastpath: ${JSON.stringify(ready.fastpath)}`)
  return program
}

const aWhile = { title: 'ping', kind: 'ping', connections: 1, size: 64 } as const
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
  {
    name: 'tproxy, left alone',
    route: 'origin',
    setup: '`tproxy-run -q -i wan0`',
    start: (world) => start(world, []),
    check: (ready) => checkCarried(ready, 'splice'),
    // Of the two ends.
    descriptors: 1,
  },
  ...Object.entries(plugins).flatMap(([route, plugin]) =>
    Object.entries(carriers).map(([carrier, options]): Side => {
      // What is direct is left alone; this plugin has the kernel translate it.
      const own = route === 'origin' && carrier === 'splice' ? ['-p', dialled] : []
      const args = [...options, ...plugin, ...own]
      const words = [
        'tproxy-run',
        '-q',
        '-i',
        'wan0',
        ...options,
        ...plugin,
        ...own.map((word) => word.replace(dialled, './dialled.ts')),
      ]
      return {
        name: `tproxy ${carrier}`,
        route: route as Route,
        setup:
          own.length === 0
            ? `\`${words.join(' ')}\``
            : `\`${words.join(' ')}\`, a plugin whose upstream is the origin itself`,
        start: (world) => start(world, args),
        check: (ready) => checkCarried(ready, carrier === 'splice' ? 'splice' : 'relay'),
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
