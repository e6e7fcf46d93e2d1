import { setTimeout as sleep } from 'node:timers/promises'
import { firewall } from '../rig/firewall.ts'
import { fastpaths, type Proxy } from './proxy.ts'
import type { Random } from './random.ts'
import type { Setting } from './setting.ts'
import { allWays, type Way } from './ways.ts'

export interface Scene {
  readonly setting: Setting
  readonly proxy: Proxy
  readonly random: Random
}

/** What goes wrong for a while. */
export interface Fault {
  readonly name: string
  readonly weight: number
  /** Connections on these ways may break; on all others they have to live. */
  readonly breaks: readonly Way[]
  /** Whether packets are lost: of a reset, which is sent once, the other side may then never hear. */
  readonly loses?: boolean
  /** Whether those that the kernel carries live all the same, and are known by their source port: see `Proxy.hasKept`. */
  readonly spares?: boolean
  /** Resolves when it is over. */
  readonly happen: (scene: Scene) => Promise<void>
}

const none: readonly Way[] = []
const intercepted = allWays.filter((way) => way !== 'outside')

/** What is lost on its way in, of every thousand packets, on one host or on both. */
async function lose({ setting: { world }, random }: Scene, thousandths: number, ms: number): Promise<void> {
  const some = thousandths < 1000 ? `numgen random mod 1000 < ${thousandths} ` : ''
  const rule = `iifname != "lo" ${some}drop`
  const hosts = random.pick([[world.client], [world.internet], [world.client, world.internet]])
  await using stack = new AsyncDisposableStack()
  for (const host of hosts) stack.use(await firewall(host, 'prerouting', rule))
  await sleep(ms)
}

async function goDown(
  { setting: { world }, random }: Scene,
  name: 'wan0' | 'wan1',
  routes: string,
): Promise<void> {
  await world.client.sh(`ip link set ${name} down`)
  await sleep(random.between(0, 1500))
  await world.client.sh(`ip link set ${name} up; sleep 0.1; ${routes}`)
}

async function replace({ proxy, random }: Scene, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  await proxy.stop(signal)
  await sleep(random.between(0, 500))
  await proxy.start(random.pick([...fastpaths, 'off']))
}

/** A line of a rules file about what no program here does. */
function anyRule(random: Random): string {
  const action = random.pick(['drop', 'reject', 'direct', 'proxy'])
  const match = random.pick([
    'dport 4000-4999',
    'to 192.0.2.0/24',
    'uid 12345',
    'cgroup /no/such',
    'process nobody',
  ])
  return `${action} tcp ${match} not dport ${Math.floor(random.between(5000, 9000))}`
}

export const faults: readonly Fault[] = [
  {
    name: 'packets are lost',
    weight: 4,
    loses: true,
    breaks: none,
    happen: (scene) => lose(scene, scene.random.size(1, 50), scene.random.between(1000, 6000)),
  },
  {
    name: 'a blackout',
    weight: 2,
    loses: true,
    breaks: none,
    happen: (scene) => lose(scene, 1000, scene.random.between(100, 2500)),
  },
  {
    name: 'the proxy stands still',
    weight: 3,
    breaks: none,
    async happen({ proxy, random }) {
      proxy.kill('SIGSTOP')
      await sleep(random.between(100, 3000))
      proxy.kill('SIGCONT')
    },
  },
  {
    name: 'rules are reloaded',
    weight: 4,
    breaks: none,
    async happen({ proxy, setting, random }) {
      const isNonsense = random.chance(0.2)
      proxy.writeRules(
        isNonsense
          ? ['drop tcp dport nonsense']
          : Array.from({ length: Math.floor(random.size(1, 300)) }, () => anyRule(random)),
      )
      if (random.chance(0.5)) {
        proxy.kill('SIGHUP')
        await sleep(200)
      } else {
        const args = ['reload', ...(random.chance(0.3) ? ['--reset'] : [])]
        const { code, stderr } = await setting.world.run(args, { input: '' }).exited
        if (code !== (isNonsense ? 125 : 0)) throw new Error(`tproxy-run reload: exit ${code}: ${stderr}`)
      }
      proxy.writeRules()
    },
  },
  {
    name: 'the routing rule is removed',
    weight: 1,
    breaks: none,
    async happen({ setting: { world }, random }) {
      await world.client.sh(`ip -${random.pick([4, 6])} rule del priority 100`)
      await sleep(1000)
    },
  },
  {
    name: 'an interface goes down and up',
    weight: 1,
    loses: true,
    breaks: allWays,
    happen: (scene) =>
      goDown(
        scene,
        'wan0',
        'ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8:1::1',
      ),
  },
  {
    name: 'an interface that no program uses goes down and up',
    weight: 1,
    breaks: none,
    happen: (scene) =>
      goDown(
        scene,
        'wan1',
        'ip route add default via 198.51.100.129 dev wan1 metric 1000; ip -6 route add default via 2001:db8:3::1 dev wan1 metric 2000',
      ),
  },
  ...(['local', 'remote', 'http'] as const).map((name) => ({
    name: `the ${name} upstream is killed`,
    weight: 1,
    breaks: [name],
    async happen({ setting, random }: Scene) {
      await setting.upstreams[name].kill()
      await sleep(random.between(0, 1500))
      await setting.upstreams[name].begin()
    },
  })),
  ...(['local', 'remote', 'http', 'dante'] as const).map((name) => ({
    name: `the ${name} upstream hangs`,
    weight: 1,
    // Its receives have timeouts: these end with EINTR when the process goes on (signal(7)), and it resets the connection.
    breaks: name === 'http' ? [name] : none,
    async happen({ setting, random }: Scene) {
      setting.upstreams[name].stand(true)
      await sleep(random.between(500, 5000))
      setting.upstreams[name].stand(false)
    },
  })),
  ...(['remote', 'http'] as const).map((name) => ({
    name: `the ${name} upstream lies`,
    weight: 1,
    breaks: [name],
    async happen({ setting, random }: Scene) {
      await setting.upstreams[name].lie(Math.floor(random.between(0, 100)))
      await sleep(random.between(500, 3000))
      await setting.upstreams[name].begin()
    },
  })),
  {
    name: 'the proxy is replaced',
    weight: 2,
    breaks: intercepted,
    spares: true,
    happen: (scene) => replace(scene, 'SIGTERM'),
  },
  {
    name: 'the proxy is killed and started',
    weight: 2,
    breaks: intercepted,
    happen: (scene) => replace(scene, 'SIGKILL'),
  },
]
