import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { fixture } from '../rig/fixture.ts'
import { danted, microsocks, tinyproxy } from '../rig/servers.ts'
import { chunks } from '../rig/stream.ts'
import { World } from '../rig/world.ts'
import { Upstream } from './upstream.ts'
import { addressOf, hidden, type Way, ways } from './ways.ts'

/** Peers that vanish have to be found out within a soak. */
const impatience = `
sysctl -qw net.ipv4.tcp_keepalive_time=10 net.ipv4.tcp_keepalive_intvl=2 net.ipv4.tcp_keepalive_probes=4 \\
  net.ipv4.tcp_orphan_retries=3 net.ipv4.tcp_fin_timeout=5 net.ipv4.tcp_syn_retries=4 net.ipv4.tcp_retries2=9 \\
  net.ipv6.conf.all.keep_addr_on_down=1`

/** A {@link World} with a way to every kind of upstream, and servers for real programs. */
export class Setting implements AsyncDisposable {
  readonly world: World
  /** Of files; goes with the setting. */
  readonly directory: string
  readonly upstreams: Readonly<Record<'local' | 'remote' | 'http' | 'dante', Upstream>>
  /** What a clone of the repository has to come to. */
  readonly head: string
  /** Programs that are installed for long soaks only. */
  readonly hasSsh = existsSync('/usr/sbin/sshd')
  readonly hasWrk = existsSync('/usr/bin/wrk')
  readonly #stack: AsyncDisposableStack

  static async create(): Promise<Setting> {
    await using stack = new AsyncDisposableStack()
    const directory = mkdtempSync(`${tmpdir()}/soak-`)
    chmodSync(directory, 0o755)
    stack.defer(() => rmSync(directory, { recursive: true, force: true }))
    await fixture('client')
    const world = stack.use(await World.create())
    const { client, internet } = world
    const spare = Object.keys(ways).filter((way) => way !== 'direct') as Way[]
    await internet.sh(
      [
        impatience,
        ...spare.map((way) => `ip addr add ${addressOf(way, 4)}/32 dev lo`),
        ...spare.map((way) => `ip addr add ${addressOf(way, 6)}/128 dev lo nodad`),
        watchLeaks,
      ].join('\n'),
    )
    await client.sh(`${impatience}\nmkdir -p /run/bpf && mount -t bpf bpf /run/bpf`)
    const head = makeRepository(`${directory}/repositories`)
    const origin = stack.use(
      internet.spawn(process.execPath, [
        fileURLToPath(new URL('./internet.ts', import.meta.url)),
        `${directory}/repositories`,
      ]),
    )
    await origin.until(({ stdout }) => stdout.includes('ready'), 'the web server')
    if (existsSync('/usr/sbin/sshd')) stack.use(await sshd(world, directory))
    const gateway = ['198.51.100.1']
    const upstreams = {
      local: stack.use(new Upstream(client, 1080, () => microsocks(client, '127.0.0.1', 1080))),
      remote: stack.use(new Upstream(internet, 1081, () => microsocks(internet, '::', 1081))),
      http: stack.use(new Upstream(internet, 8888, () => tinyproxy(internet, gateway, 8888))),
      dante: stack.use(new Upstream(internet, 1082, () => danted(internet, gateway, 1082, 'eth0'))),
    }
    await Promise.all(Object.values(upstreams).map((upstream) => upstream.begin()))
    return new Setting(world, directory, upstreams, head, stack.move())
  }

  private constructor(
    world: World,
    directory: string,
    upstreams: Setting['upstreams'],
    head: string,
    stack: AsyncDisposableStack,
  ) {
    this.world = world
    this.directory = directory
    this.upstreams = upstreams
    this.head = head
    this.#stack = stack
  }

  /** How many connections came from the client itself that should have come from an upstream. */
  async leaked(): Promise<number> {
    const text = await this.world.internet.sh('/usr/sbin/nft list counter inet soak leaked')
    return Number(/packets (\d+)/.exec(text)?.[1])
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}

const reaches = (family: 4 | 6) => hidden.map((way) => addressOf(way, family)).join(', ')
const watchLeaks = `/usr/sbin/nft -f - <<'end'
table inet soak {
  counter leaked {}
  chain arriving {
    type filter hook prerouting priority 0;
    tcp flags & (syn|ack) == syn ip saddr { 198.51.100.2, 198.51.100.130 } ip daddr { ${reaches(4)} } counter name leaked
    tcp flags & (syn|ack) == syn ip6 saddr { 2001:db8:1::2, 2001:db8:3::2 } ip6 daddr { ${reaches(6)} } counter name leaked
  }
}
end`

/** A repository of two megabytes that do not compress. Returns its head. */
function makeRepository(directory: string): string {
  const [bare, tree] = [`${directory}/soak.git`, `${directory}/tree`]
  mkdirSync(tree, { recursive: true })
  const git = (...args: string[]) =>
    execFileSync('git', ['-C', tree, '-c', 'user.name=soak', '-c', 'user.email=soak@test.invalid', ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    }).trim()
  git('init', '-q', '-b', 'main')
  let part = 0
  for (const chunk of chunks(2 << 20)) writeFileSync(`${tree}/${part++}`, chunk)
  git('add', '.')
  git('commit', '-q', '-m', 'soak')
  const head = git('rev-parse', 'HEAD')
  cpSync(`${tree}/.git`, bare, { recursive: true })
  rmSync(tree, { recursive: true })
  return head
}

/** An ssh server on port 2222 that lets in the key `DIRECTORY/key`. */
async function sshd({ internet }: World, directory: string): Promise<AsyncDisposable> {
  for (const key of ['key', 'host'])
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', `${directory}/${key}`])
  // SHLVL: as if run by another shell; bash reads ~/.bashrc for whoever comes by ssh otherwise.
  writeFileSync(
    `${directory}/sshd.conf`,
    `Port 2222
HostKey ${directory}/host
AuthorizedKeysFile ${directory}/key.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
MaxStartups 100
ClientAliveInterval 5
UseDNS no
SetEnv SHLVL=2
`,
  )
  await internet.sh('mkdir -p /run/sshd')
  const server = internet.spawn('/usr/sbin/sshd', ['-D', '-e', '-f', `${directory}/sshd.conf`])
  await server.until(({ stderr }) => stderr.includes('listening'), 'the ssh server')
  return server
}
