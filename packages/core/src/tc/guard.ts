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

/** A watcher that outlives this process to end a cgroup. */
export interface Guard {
  close(): void
}

/**
 * Should this process die by SIGKILL, kills all that runs in `cgroup` before its programs are detached: until then the
 * hooks find no listener and drop, so that no packet of it leaves unproxied.
 */
export function guardCgroup(cgroup: string, links: readonly number[]): Guard {
  const child: ChildProcess = spawn('/bin/sh', ['-c', script, cgroup], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore', ...links],
    cwd: '/',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  })
  child.unref()
  // Its end of the pipe breaks only when it was killed; then there is nobody left to tell.
  child.on('error', () => {})
  child.stdin?.on('error', () => {})
  return {
    close: () => {
      child.kill('SIGKILL')
      child.stdin?.destroy()
    },
  }
}
