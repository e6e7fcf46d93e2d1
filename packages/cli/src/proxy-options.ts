import {
  direct,
  drop,
  type FastpathState,
  type Plugin,
  type ProxyOptions,
  selectInterfaces,
} from '@tproxy/core'
import type { Ready } from './report.ts'
import type { Settings } from './settings.ts'

/** What both forms hand to core alike. */
export function proxyOptions(settings: Settings, plugins: readonly Plugin[]): ProxyOptions {
  return {
    plugins,
    rules: settings.rules,
    ...(settings.defaultAction !== undefined && { defaultAction: settings.defaultAction }),
    default: settings.default === 'drop' ? drop() : direct(),
    carry: settings.carry,
    fastpath: settings.fastpath,
    routing: settings.routing,
    timeouts: settings.timeouts,
  }
}

export function readiness(
  settings: Settings,
  {
    plugins,
    cgroup,
    fastpath,
  }: { plugins: readonly Plugin[]; cgroup: string | undefined; fastpath: FastpathState },
): Ready {
  return {
    interfaces: selectInterfaces(settings.interfaces ?? 'all').map(({ name }) => name),
    cgroup,
    plugins: plugins.map(({ name, upstreams = [] }) => ({
      name: name || 'anonymous',
      upstreams: upstreams.map((upstream) => upstream.name),
    })),
    rules: settings.rules.length,
    default: settings.default,
    fastpath,
  }
}
