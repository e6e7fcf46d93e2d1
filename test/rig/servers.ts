// Proxy servers as a distribution packages them, each with the smallest configuration that serves.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Host, Program } from './host.ts'

export interface Credentials {
  readonly user: string
  readonly password: string
}

/** A server that runs. Its configuration goes with it. */
export class Server implements AsyncDisposable {
  readonly program: Program
  readonly #directory: string

  constructor(program: Program, directory: string) {
    this.program = program
    this.#directory = directory
  }

  /** Ends it with SIGTERM, so that servers that fork end their children. */
  async [Symbol.asyncDispose](): Promise<void> {
    const ended = await Promise.race([this.program.stop().then(() => true), sleep(2000, false)])
    if (!ended) await this.program.stop('SIGKILL')
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

async function start(
  host: Host,
  port: number,
  command: (directory: string) => readonly [string, ...string[]],
): Promise<Server> {
  const directory = mkdtempSync(`${tmpdir()}/rig-server-`)
  // For servers that become another user.
  chmodSync(directory, 0o777)
  const [program, ...args] = command(directory)
  const server = new Server(host.spawn(program, args), directory)
  for (const deadline = performance.now() + 15_000; ; await sleep(20)) {
    if ((await host.run('ss', ['-ltnH', `sport = :${port}`])).stdout !== '') return server
    if (performance.now() < deadline && server.program.child.exitCode === null) continue
    const { stdout, stderr } = server.program
    await server[Symbol.asyncDispose]()
    throw new Error(`${program} does not listen:\n${stdout}${stderr}`)
  }
}

/** `address` may be `::`, for both families. */
export function microsocks(
  host: Host,
  address: string,
  port: number,
  credentials?: Credentials,
): Promise<Server> {
  const login = credentials === undefined ? [] : ['-u', credentials.user, '-P', credentials.password]
  return start(host, port, () => ['microsocks', '-i', address, '-p', `${port}`, ...login])
}

/** `external` is the interface it connects from. */
export function danted(
  host: Host,
  addresses: readonly string[],
  port: number,
  external: string,
): Promise<Server> {
  return start(host, port, (directory) => {
    const file = `${directory}/danted.conf`
    writeFileSync(
      file,
      `logoutput: stderr
${addresses.map((address) => `internal: ${address} port = ${port}\n`).join('')}external: ${external}
socksmethod: none
clientmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0/0 to: 0/0 }
socks pass { from: 0/0 to: 0/0 }
`,
    )
    return ['/usr/sbin/danted', '-f', file, '-p', `${directory}/pid`]
  })
}

export function tinyproxy(
  host: Host,
  addresses: readonly string[],
  port: number,
  credentials?: Credentials,
): Promise<Server> {
  return start(host, port, (directory) => {
    const file = `${directory}/tinyproxy.conf`
    const login = credentials === undefined ? '' : `BasicAuth ${credentials.user} ${credentials.password}\n`
    const listen = addresses.map((address) => `Listen ${address}\n`).join('')
    writeFileSync(file, `Port ${port}\n${listen}Timeout 60\nMaxClients 500\nLogLevel Error\n${login}`)
    return ['tinyproxy', '-d', '-c', file]
  })
}

export function squid(host: Host, addresses: readonly string[], port: number): Promise<Server> {
  return start(host, port, (directory) => {
    const file = `${directory}/squid.conf`
    const listen = addresses.map((address) =>
      address.includes(':') ? `http_port [${address}]:${port}\n` : `http_port ${address}:${port}\n`,
    )
    writeFileSync(
      file,
      `${listen.join('')}visible_hostname squid.test
http_access allow all
cache deny all
cache_mem 8 MB
max_filedescriptors 1024
pinger_enable off
netdb_filename none
pid_filename ${directory}/pid
cache_log ${directory}/log
access_log none
cache_store_log none
coredump_dir ${directory}
shutdown_lifetime 0 seconds
`,
    )
    // It leaves names in /dev/shm when it is killed, and does not start again over them.
    const alone = 'mount -t tmpfs none /dev/shm && exec "$@"'
    return ['unshare', '-m', 'sh', '-c', alone, 'sh', '/usr/sbin/squid', '-N', '-d', '1', '-f', file]
  })
}
