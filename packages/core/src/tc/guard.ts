import { type ChildProcess, spawn } from 'node:child_process'
import { reason } from '../errors.ts'

/**
 * Holds the links open and waits for us to die. A shell, because it must not share our fate, our memory or our bugs.
 * Signals of a terminal do not reach it: it is in a session of its own. Those of a service manager, which go to all of our
 * cgroup, do not end it.
 */
const script = `trap '' HUP INT TERM
read -r _
n=0
while [ -d "$0" ] && [ $n -lt 500 ]; do
  echo 1 >"$0/cgroup.kill"
  find "$0" -depth -type d -exec rmdir {} +
  n=$((n + 1))
  sleep 0.01
done`

/**
 * Should this process die by SIGKILL, kills all that runs in `cgroup` before its programs are detached: until then the
 * hooks find no listener and drop, so that no packet of it leaves unproxied. Without a cgroup it does nothing.
 */
export class Guard implements Disposable {
  readonly #cgroup: string | undefined
  readonly #warn: (message: string) => void
  #child: ChildProcess | undefined

  constructor(cgroup: string | undefined, warn: (message: string) => void) {
    this.#cgroup = cgroup
    this.#warn = warn
  }

  /** From now on guards with these links, in place of those before. */
  hold(links: readonly number[]): void {
    if (this.#cgroup === undefined) return
    const before = this.#child
    const child = spawn('/bin/sh', ['-c', script, this.#cgroup], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore', ...links],
      cwd: '/',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    })
    child.unref()
    const lost = (why: string) => {
      if (this.#child === child)
        this.#warn(
          `who guards the command ${why}: should this process be killed, packets of the command may leave unproxied until it is started again`,
        )
    }
    child.on('error', (error) => lost(`cannot be started: ${reason(error)}`))
    child.on('exit', (code, signal) => lost(`has ended (${signal ?? code})`))
    // Its end of the pipe breaks only when it was killed.
    child.stdin?.on('error', () => {})
    this.#child = child
    end(before)
  }

  [Symbol.dispose](): void {
    const child = this.#child
    this.#child = undefined
    end(child)
  }
}

function end(child: ChildProcess | undefined): void {
  child?.kill('SIGKILL')
  child?.stdin?.destroy()
}
