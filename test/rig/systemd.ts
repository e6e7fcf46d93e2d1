import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Host, Result } from './host.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** What tproxy.service refers to by default, and no more of a system. */
const targets = ['rig', 'sysinit', 'basic', 'shutdown', 'network-online', 'nss-lookup', 'multi-user']

/**
 * Becomes the first process of a host of its own: with its own process numbers and cgroups, a copy of /etc, and tproxy-run
 * where `npm install -g` puts it.
 */
const boot = `set -e
mount -t proc proc /proc
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /run/etc && cp -a /etc/. /run/etc && mount --bind /run/etc /etc
mount -t tmpfs tmpfs /var/log
# It makes links there, and device nodes work on a read-only mount.
mount --rbind /dev /dev && mount -o remount,bind,ro /dev
# Not where it is: the service does not see /tmp and /home.
mount -t tmpfs tmpfs /opt && mkdir /opt/tproxy && mount --bind "$0" /opt/tproxy
mount -t tmpfs tmpfs /usr/local/bin && ln -s /opt/tproxy/tproxy-run /usr/local/bin
rm -rf /etc/systemd/system/* /etc/tproxy
for target in ${targets.join(' ')}; do
  printf '[Unit]\\nDefaultDependencies=no\\n' >/etc/systemd/system/$target.target
done
export container=rig SYSTEMD_UNIT_PATH=/etc/systemd/system
exec /lib/systemd/systemd --system --unit=rig.target --show-status=0 --log-target=console`

/** A host that systemd runs. */
export interface Systemd extends AsyncDisposable {
  /** Runs lines of shell there. */
  run(script: string): Promise<Result>
  /** The same, which must succeed; returns what they print. */
  sh(script: string): Promise<string>
}

/** Boots systemd in the network of a host, beside what runs there. */
export async function bootSystemd(host: Host): Promise<Systemd> {
  const program = host.spawn('unshare', [
    ...['--mount', '--pid', '--uts', '--ipc', '--cgroup', '--fork', '--kill-child'],
    ...['bash', '-c', boot, root],
  ])
  const init = () => readFileSync(`/proc/${program.pid}/task/${program.pid}/children`, 'utf8').trim()
  const run = (script: string) =>
    host.run('nsenter', ['-t', init(), ...'-m -p -u -i -C'.split(' '), 'bash', '-ec', script], {
      env: { SYSTEMD_PAGER: '', XDG_RUNTIME_DIR: '' },
    })
  const sh = async (script: string) => {
    const { code, stdout, stderr } = await run(script)
    if (code !== 0) throw new Error(`${script}: exit ${code}\n${stdout}${stderr}`)
    return stdout
  }
  await program.until(() => init() !== '', 'an init')
  await sh(
    'for _ in $(seq 100); do systemctl is-active -q rig.target 2>/dev/null && exit; sleep .05; done; exit 1',
  )
  return {
    run,
    sh,
    async [Symbol.asyncDispose]() {
      // Its init does not mind SIGTERM, and goes with what waits for it.
      await program.stop('SIGKILL')
    },
  }
}
