import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { reason } from '../errors.ts'

/**
 * Holds the links open and waits for us to die; then resets what is proxied. A shell, because it must not share our fate, our
 * memory or our bugs. Signals of a terminal do not reach it: it is in a session of its own. Those of a service manager, which
 * go to all of our cgroup, do not end it; systemd's watchdog sends SIGABRT. The pipe breaks while we are still closing the rest,
 * for milliseconds, and what our sockets send then must not be answered past the hooks: it waits for the last of our threads.
 */
const script = `trap '' HUP INT QUIT ABRT USR1 USR2 TERM
cgroup=$0 pid=$1
read -r _
n=0
while [ -d "$cgroup" ] && [ $n -lt 500 ]; do
  echo 1 >"$cgroup/cgroup.kill"
  find "$cgroup" -depth -type d -exec rmdir {} +
  n=$((n + 1))
  sleep 0.01
done
while grep -qs '^State:[[:space:]]*[^[:space:]ZX]' /proc/$pid/task/*/status && [ $n -lt 1000 ]; do
  n=$((n + 1))
  sleep 0.01
done
read -r _ <&3`

/**
 * Should this process die by SIGKILL, or crash, sees to it that nothing of what is proxied leaves by itself when the programs are
 * detached. First it kills all that runs in `cgroup`, if there is one; then it has the kernel reset every connection that is
 * proxied, also where its program is gone and had left bytes to be sent. Until then the hooks do what they did, and drop what is
 * for the listener.
 */
export class Guard implements AsyncDisposable {
  readonly #cgroup: string | undefined
  readonly #ender: number
  readonly #warn: (message: string) => void
  #child: ChildProcess | undefined

  /** `ender` is a descriptor that resets them when it is read; it is closed with this. */
  constructor(cgroup: string | undefined, ender: number, warn: (message: string) => void) {
    this.#cgroup = cgroup
    this.#ender = ender
    this.#warn = warn
  }

  /** From now on guards with these links, in place of those before. */
  hold(links: readonly number[]): void {
    const before = this.#child
    const child = spawn('/bin/sh', ['-c', script, this.#cgroup ?? '', String(process.pid)], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore', this.#ender, ...links],
      cwd: '/',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    })
    child.unref()
    const lost = (why: string) => {
      if (this.#child === child)
        this.#warn(
          `who guards what is proxied ${why}: should this process be killed, packets of it may leave unproxied until it is started again`,
        )
    }
    child.on('error', (error) => lost(`cannot be started: ${reason(error)}`))
    child.on('exit', (code, signal) => lost(`has ended (${signal ?? code})`))
    // Its end of the pipe breaks only when it was killed.
    child.stdin?.on('error', () => {})
    this.#child = child
    void end(before)
  }

  /** Once it is over, nobody but us holds the links. */
  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child
    this.#child = undefined
    await end(child)
    closeSync(this.#ender)
  }
}

async function end(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null || child.pid === undefined)
    return
  const over = once(child, 'exit')
  child.ref()
  child.kill('SIGKILL')
  await over
  child.stdin?.destroy()
}
