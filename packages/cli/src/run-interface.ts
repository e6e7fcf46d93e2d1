import { TransparentProxy } from '@tproxy/core'
import type { Ending } from './ending.ts'
import type { InterfaceForm } from './invocation.ts'
import { loadPlugins } from './plugins.ts'
import { requirePrivileges } from './privileges.ts'
import { proxyOptions, readiness } from './proxy-options.ts'
import { follow, type Report } from './report.ts'
import { readRules } from './rules-file.ts'
import { listen } from './signals.ts'

/** `tproxy-run --interface NAME`: until a signal; a second one does not wait for connections to finish. */
export async function runInterface(
  { options }: InterfaceForm,
  report: Report,
  fatal: Promise<never>,
): Promise<Ending> {
  const rules = readRules(options.rules)
  requirePrivileges()
  const plugins = await loadPlugins(options.plugins, process.cwd())

  const { promise: stopped, resolve: stop } = Promise.withResolvers<void>()
  let onSignal: () => void = stop
  using _signals = listen(['SIGTERM', 'SIGINT', 'SIGHUP'], () => onSignal())
  await using proxy = await TransparentProxy.open({
    ...proxyOptions(options, { plugins, rules }),
    interfaces: options.interfaces ?? 'auto',
  })
  follow(proxy, report)
  report.ready(readiness(options, { plugins, rules, cgroup: undefined }))
  await Promise.race([stopped, fatal])
  onSignal = () => proxy.abort()
  await proxy.close()
  return { code: 0 }
}
