import { limits, TproxyError, TransparentProxy } from '@tproxy/core'
import { attend } from './control/attend.ts'
import type { Ending } from './ending.ts'
import type { InterfaceForm } from './invocation.ts'
import { readyLine, unstyled } from './lines.ts'
import { serveMetrics } from './metrics/serve.ts'
import { loadPlugins } from './plugins.ts'
import { requirePrivileges } from './privileges.ts'
import { proxyOptions, readiness } from './proxy-options.ts'
import { hasFiles } from './reload.ts'
import { follow } from './report.ts'
import { makeService } from './service.ts'
import { readSettings } from './settings.ts'
import { hasTerminal, listen } from './signals.ts'
import type { Surroundings } from './surroundings.ts'

/**
 * `tproxy-run --interface NAME`: until a signal; a second one does not wait for connections to finish. SIGHUP has files read
 * again, where there are any, unless it says that our terminal is gone.
 */
export async function runInterface(
  { options }: InterfaceForm,
  { report, fatal, ignored }: Surroundings,
): Promise<Ending> {
  const settings = await readSettings(options)
  if (settings.interfaces === undefined)
    throw new TproxyError('E_OPTION', `${options.config} names no interfaces, and there is no command`, {
      hint: 'write interfaces: auto there, or give --interface NAME or a command',
    })
  if (settings.user !== undefined)
    throw new TproxyError('E_OPTION', 'a user without a command', { hint: 'see tproxy-run --help' })
  requirePrivileges()
  using service = makeService((message) => report.warning(message))
  const plugins = await loadPlugins(settings.plugins, process.cwd())

  const { promise: stopped, resolve: stop } = Promise.withResolvers<void>()
  let onSignal: () => void = stop
  const hadTerminal = hasTerminal()
  const asksToReload = () => hasFiles(options) && !(hadTerminal && !hasTerminal())
  let reloadLater = false
  let reload = () => {
    reloadLater = true
  }
  using _signals = listen(['SIGTERM', 'SIGINT'], () => onSignal())
  using _hangUp = listen(['SIGHUP'], () => {
    if (asksToReload()) reload()
    else if (!ignored.includes('SIGHUP')) onSignal()
  })
  await using proxy = await TransparentProxy.open({
    ...proxyOptions(settings, plugins),
    interfaces: settings.interfaces,
  })
  // Who hears that all connections are closed is not to wait for them.
  fatal.catch(() => proxy.abort())
  follow(proxy, report)
  await using _metrics = settings.metrics && (await serveMetrics(proxy, settings.metrics))
  {
    await using attendance = await attend(proxy, { options, settings, plugins, report, service })
    const ready = readiness(settings, { plugins, cgroup: undefined }, proxy)
    report.ready(ready)
    service.ready(readyLine(ready, unstyled))
    // What is wrong is reported.
    reload = () => void attendance.reload({ reset: false }).catch(() => {})
    if (reloadLater) reload()
    await Promise.race([stopped, fatal])
    onSignal = () => proxy.abort()
    reload = () => {}
    service.stopping(limits(settings.timeouts).drainMs)
  }
  await Promise.race([proxy.close(), fatal])
  return { code: 0 }
}
