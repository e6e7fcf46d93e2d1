import { type ChildProcess, spawn } from 'node:child_process'

/**
 * Holds the links open and waits for us to die. A shell, because it must not share our fate, our memory or our bugs.
 * Signals of a terminal do not reach it: it is in a session of its own.
 */
const script = `read -r _
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
  #child: ChildProcess | undefined

  constructor(cgroup: string | undefined) {
    this.#cgroup = cgroup
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
    // Its end of the pipe breaks only when it was killed; then there is nobody left to tell.
    child.on('error', () => {})
    child.stdin?.on('error', () => {})
    this.#child = child
    end(before)
  }

  [Symbol.dispose](): void {
    end(this.#child)
  }
}

function end(child: ChildProcess | undefined): void {
  child?.kill('SIGKILL')
  child?.stdin?.destroy()
}
