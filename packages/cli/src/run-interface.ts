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
import { follow, type Report } from './report.ts'
import { makeService } from './service.ts'
import { readSettings } from './settings.ts'
import { hasTerminal, listen } from './signals.ts'

/**
 * `tproxy-run --interface NAME`: until a signal; a second one does not wait for connections to finish. SIGHUP has files read
 * again, where there are any, unless it says that our terminal is gone.
 */
export async function runInterface(
  { options }: InterfaceForm,
  report: Report,
  fatal: Promise<never>,
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
  let onHangUp = () => onSignal()
  using _signals = listen(['SIGTERM', 'SIGINT'], () => onSignal())
  using _hangUp = listen(['SIGHUP'], () => onHangUp())
  const hadTerminal = hasTerminal()
  await using proxy = await TransparentProxy.open({
    ...proxyOptions(settings, plugins),
    interfaces: settings.interfaces,
  })
  follow(proxy, report)
  await using _metrics = settings.metrics && (await serveMetrics(proxy, settings.metrics))
  {
    await using attendance = await attend(proxy, { options, settings, plugins, report, service })
    const ready = readiness(settings, { plugins, cgroup: undefined }, proxy)
    report.ready(ready)
    service.ready(readyLine(ready, unstyled))
    if (hasFiles(options))
      onHangUp = () => {
        if (hadTerminal && !hasTerminal()) onSignal()
        // What is wrong was reported.
        else attendance.reload({ reset: false }).catch(() => {})
      }
    await Promise.race([stopped, fatal])
    onSignal = () => proxy.abort()
    onHangUp = () => onSignal()
    service.stopping(limits(settings.timeouts).drainMs)
  }
  await proxy.close()
  return { code: 0 }
}
