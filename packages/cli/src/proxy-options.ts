import {
  type Decisions,
  direct,
  drop,
  type Plugin,
  type ProxyOptions,
  type TransparentProxy,
} from '@tproxy/core'
import type { Ready } from './report.ts'
import type { Settings } from './settings.ts'

/** What can be read again. */
export function decisions(settings: Settings, plugins: readonly Plugin[]): Decisions {
  return {
    plugins,
    rules: settings.rules,
    ...(settings.defaultAction !== undefined && { defaultAction: settings.defaultAction }),
    default: settings.default === 'drop' ? drop() : direct(),
  }
}

/** What both forms hand to core alike. */
export function proxyOptions(settings: Settings, plugins: readonly Plugin[]): ProxyOptions {
  return {
    ...decisions(settings, plugins),
    carry: settings.carry,
    keepSpliced: settings.keep,
    names: settings.names,
    fastpath: settings.fastpath,
    routing: settings.routing,
    timeouts: settings.timeouts,
  }
}

export function readiness(
  settings: Settings,
  { plugins, cgroup }: { plugins: readonly Plugin[]; cgroup: string | undefined },
  { interfaces, adopted, fastpath }: Pick<TransparentProxy, 'interfaces' | 'adopted' | 'fastpath'>,
): Ready {
  return {
    interfaces,
    cgroup,
    plugins: plugins.map(({ name, upstreams = [] }) => ({
      name,
      upstreams: upstreams.map((upstream) => upstream.name),
    })),
    rules: settings.rules.length,
    default: settings.default,
    adopted: adopted.length,
    fastpath,
  }
}
