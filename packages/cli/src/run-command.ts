import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Cgroup, makeCgroup, type Plugin, TproxyError, TransparentProxy } from '@tproxy/core'
import { attend } from './control/attend.ts'
import { type Ending, exitCode } from './ending.ts'
import { findExecutable, findTool, type Lookup } from './executable.ts'
import type { CommandForm } from './invocation.ts'
import { invoker } from './invoker.ts'
import { launch } from './launch.ts'
import { meantCommand } from './meant-command.ts'
import { serveMetrics } from './metrics/serve.ts'
import { complain } from './output.ts'
import { loadPlugins } from './plugins.ts'
import { requirePrivileges } from './privileges.ts'
import { proxyOptions, readiness } from './proxy-options.ts'
import { follow } from './report.ts'
import { readSettings, type Settings } from './settings.ts'
import { forwarded, isFromTerminal, listen } from './signals.ts'
import type { Surroundings } from './surroundings.ts'

/** `tproxy-run -- COMMAND`: interception of one command first, and only then the command. */
export async function runCommand(
  invocation: CommandForm,
  { report, fatal, ignored }: Surroundings,
): Promise<Ending> {
  const { options, command, terminated } = invocation
  const settings = await readSettings(options)
  if (settings.keep)
    throw new TproxyError('E_OPTION', `${options.keep ? '--keep' : 'keep: true'} with a command`, {
      hint: 'a command ends with tproxy-run; --keep is for --interface',
    })
  const cwd = process.cwd()
  const program = findExecutable(command[0], process.env['PATH'] ?? '/usr/bin:/bin', cwd)
  if ('missing' in program) {
    const meant = program.missing === 'not found' && !terminated ? meantCommand(command[0]) : undefined
    complain(`${command[0]}: ${sayMissing(program)}${meant === undefined ? '' : ` (${meant})`}`)
    const isThere = program.missing === 'not executable' || program.missing === 'a directory'
    return { code: isThere ? exitCode.notExecutable : exitCode.notFound }
  }
  const as = invoker(settings.user, { env: process.env, uid: process.geteuid?.() ?? -1 })
  const setpriv = findTool('setpriv')
  if (setpriv === undefined)
    throw new TproxyError('E_SYSTEM', 'setpriv is missing', { hint: 'install util-linux' })
  requirePrivileges('; the command itself still runs as you')
  const plugins = await loadPlugins(settings.plugins, cwd)

  let early: NodeJS.Signals | undefined
  let onSignal = (signal: NodeJS.Signals) => {
    early ??= signal
  }
  using _signals = listen(
    forwarded.filter((signal) => !ignored.includes(signal)),
    (signal) => onSignal(signal),
  )
  await using undo = new AsyncDisposableStack()
  const { cgroup, proxy } = await intercept(settings, plugins, undo)
  // Who hears that all connections are closed is not to wait for them.
  fatal.catch(() => proxy.abort())
  follow(proxy, report)
  if (settings.metrics !== undefined) undo.use(await serveMetrics(proxy, settings.metrics))
  undo.use(await attend(proxy, { options, settings, plugins, report }))
  report.ready(readiness(settings, { plugins, cgroup: cgroup.path }, proxy))
  // Opening leaves no time for what came meanwhile, and the command must not miss a ^C that came before it.
  await nextTurn()
  await nextTurn()
  if (early !== undefined) return { signal: early }

  const running = launch(command, { cgroup: cgroup.path, setpriv, as, ignored })
  onSignal = (signal) => {
    if (!isFromTerminal(signal)) running.kill(signal)
  }
  let ending: Ending
  try {
    ending = await Promise.race([running.ended, fatal])
  } finally {
    // On its way into its cgroup, it would find none, and say so.
    running.kill('SIGKILL')
  }
  // What the command sent last is still on its way; who asks twice does not want to wait for it.
  onSignal = () => proxy.abort()
  const undone = undo.disposeAsync()
  try {
    await Promise.race([undone, fatal])
  } finally {
    await undone
  }
  return ending
}

function sayMissing(program: Extract<Lookup, { missing: string }>): string {
  switch (program.missing) {
    case 'not found':
      return 'command not found'
    case 'a directory':
      return 'is a directory'
    case 'interpreter':
      return `its interpreter ${program.interpreter} is not there`
    default:
      return program.missing
  }
}

/** Leaves in `undo` how to end it. */
async function intercept(
  settings: Settings,
  plugins: readonly Plugin[],
  undo: AsyncDisposableStack,
): Promise<{ cgroup: Cgroup; proxy: TransparentProxy }> {
  const cgroup = undo.use(makeCgroup())
  const proxy = undo.use(
    await TransparentProxy.open({
      ...proxyOptions(settings, plugins),
      interfaces: settings.interfaces ?? 'all',
      cgroup: cgroup.path,
      failClosed: true,
    }),
  )
  // Before the proxy closes: once it takes nothing new, nothing of the command may run.
  undo.defer(() => cgroup.close())
  return { cgroup, proxy }
}
