import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, readlinkSync, rmdirSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

if (process.getuid?.() !== 0) throw new Error('the kernel tests need root: they make network namespaces')

/** Where cgroup v2 is mounted differs between machines. */
export const cgroupMount: string = (() => {
  const line = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .find((entry) => entry.split(' ')[2] === 'cgroup2')
  if (line === undefined) throw new Error('cgroup v2 is not mounted')
  return line.split(' ')[1] ?? ''
})()

const enclosure = 'umount "$0" && mount -t cgroup2 none "$0" && exec "$@"'

/**
 * Words in front of a program that sees no cgroup but its own, which is the host's: what attaches to all cgroups there are
 * reaches no further.
 */
export const enclosed: readonly [string, ...string[]] = [
  'unshare',
  ...['--cgroup', '--mount', 'sh', '-c', enclosure, cgroupMount],
]

/** What a finished program left. */
export interface Result {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly input?: string | Buffer
  /** Then SIGKILL. Default 30 s. */
  readonly timeoutMs?: number
  readonly env?: NodeJS.ProcessEnv
}

/** A program that runs in a host. */
export class Program implements AsyncDisposable {
  readonly child: ChildProcess
  readonly exited: Promise<Result>
  stdout = ''
  stderr = ''
  #ended = false

  constructor(child: ChildProcess) {
    this.child = child
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    child.stdin?.on('error', () => {})
    const { promise, resolve, reject } = Promise.withResolvers<Result>()
    promise.catch(() => {})
    this.exited = promise
    child.once('error', reject)
    child.once('close', (code, signal) => {
      this.#ended = true
      resolve({ code, signal, stdout: this.stdout, stderr: this.stderr })
    })
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  /** Every line of stdout so far that is JSON. */
  // biome-ignore lint: a test knows what it printed
  get events(): any[] {
    return (
      this.stdout
        .split('\n')
        // The last is not whole yet, or empty.
        .slice(0, -1)
        .filter((line) => line.startsWith('{'))
        .map((line) => JSON.parse(line))
    )
  }

  /** Waits until `found` is true of what was printed. */
  async until(found: (program: this) => unknown, what: string, timeoutMs = 10_000): Promise<void> {
    const deadline = performance.now() + timeoutMs
    while (!found(this)) {
      if (this.#ended || performance.now() > deadline)
        throw new Error(
          `${this.#ended ? 'it ended' : 'waited'} without ${what}:\n${this.stdout}${this.stderr}`,
        )
      await sleep(10)
    }
  }

  kill(signal: NodeJS.Signals = 'SIGTERM'): void {
    this.child.kill(signal)
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Result> {
    this.kill(signal)
    return this.exited
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended) await this.stop('SIGKILL')
  }
}

/** The network namespace of the tests, in which proxy.ts refuses to run. */
const machine = readlinkSync('/proc/self/ns/net')

let made = 0

/**
 * Begins with the outcome of the one trial (see trial.ts). Waits for the end of the test process, however it comes; then ends what still runs in the host,
 * and its cgroups.
 */
const holding = `mount -t tmpfs none /run && ip link set lo up || exit
[ -z "$RIG_TRIAL" ] || { mkdir -m 700 /run/tproxy && printf %s "$RIG_TRIAL" >/run/tproxy/trial.json; }
echo ready
read -r _
n=0
while [ -d "$0" ] && [ $n -lt 300 ]; do
  echo 1 >"$0/cgroup.kill"
  find "$0" -depth -type d -exec rmdir {} +
  n=$((n + 1))
  sleep 0.01
done 2>/dev/null`

/**
 * A host: a network and mount namespace of its own, with a private /run, and a cgroup. It is held by a process that reads
 * from us, so that it vanishes with the test however that ends.
 */
export class Host implements AsyncDisposable {
  readonly name: string
  /** Absolute path. Everything that the host runs is in it. */
  readonly cgroup: string
  readonly #holder: ChildProcess

  static async create(name: string): Promise<Host> {
    const cgroup = `${cgroupMount}/rig-${process.pid}-${++made}`
    mkdirSync(cgroup)
    const holder = spawn(
      'unshare',
      [...['--net', '--mount', '--propagation', 'private', 'sh', '-c', holding, cgroup]],
      // In a session of its own: what ends the test, such as Ctrl-C or timeout(1), must not end what cleans up after it.
      { detached: true, stdio: ['pipe', 'pipe', 'inherit'] },
    )
    holder.stdin.on('error', () => {})
    const ended = once(holder, 'exit').then(() => {
      throw new Error(`make host ${name}: unshare ended`)
    })
    await Promise.race([once(holder.stdout, 'data'), ended])
    ended.catch(() => {})
    return new Host(name, holder, cgroup)
  }

  private constructor(name: string, holder: ChildProcess, cgroup: string) {
    this.name = name
    this.#holder = holder
    this.cgroup = cgroup
  }

  get pid(): number {
    return this.#holder.pid ?? 0
  }

  /** Starts a program. It enters the host's cgroup before anything else. */
  spawn(command: string, args: readonly string[] = [], options: RunOptions = {}): Program {
    const enter = 'echo 0 >"$0/cgroup.procs"; exec nsenter -t "$1" -n -m --wd=. "${@:2}"'
    const child = spawn('bash', ['-c', enter, this.cgroup, String(this.pid), command, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      // As if run by another shell: bash takes a stdin that is a socket for rshd and reads ~/.bashrc otherwise.
      env: { ...process.env, SHLVL: '2', RIG_MACHINE: machine, ...options.env },
    })
    if (options.input !== undefined) child.stdin.end(options.input)
    return new Program(child)
  }

  /** Runs a program to its end. */
  async run(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Result> {
    await using program = this.spawn(command, args, { input: '', ...options })
    const timer = setTimeout(() => program.kill('SIGKILL'), options.timeoutMs ?? 30_000)
    const result = await program.exited
    clearTimeout(timer)
    return result
  }

  /** Runs lines of shell that must succeed. */
  async sh(script: string): Promise<string> {
    const { code, stdout, stderr } = await this.run('bash', ['-ec', script])
    if (code !== 0) throw new Error(`${this.name}: ${script}: exit ${code}\n${stderr}`)
    return stdout
  }

  /** Ends everything in the host, and the host. */
  async close(): Promise<void> {
    writeFileSync(`${this.cgroup}/cgroup.kill`, '1')
    this.#holder.stdin?.end('\n')
    if (this.#holder.exitCode === null) await once(this.#holder, 'exit')
    await removeTree(this.cgroup)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

async function removeTree(cgroup: string): Promise<void> {
  const { readdirSync } = await import('node:fs')
  for (let attempt = 0; ; attempt++)
    try {
      for (const entry of readdirSync(cgroup, { withFileTypes: true }))
        if (entry.isDirectory()) await removeTree(`${cgroup}/${entry.name}`)
      rmdirSync(cgroup)
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      if (attempt > 200) throw error
      await sleep(10)
    }
}
