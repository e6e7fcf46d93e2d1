import { direct, drop, type Plugin, type ProxyOptions, selectInterfaces } from '@tproxy/core'
import type { Options } from './options.ts'
import type { Ready } from './report.ts'
import type { GivenRules } from './rules-file.ts'

interface Given {
  readonly plugins: readonly Plugin[]
  readonly rules: GivenRules
}

/** What both forms hand to core alike. */
export function proxyOptions(options: Options, { plugins, rules }: Given): ProxyOptions {
  return {
    plugins,
    rules: rules.rules,
    ...(rules.default !== undefined && { defaultAction: rules.default }),
    default: options.default === 'drop' ? drop() : direct(),
    routing: options.routing,
    timeouts: options.timeouts,
  }
}

export function readiness(options: Options, given: Given & { cgroup: string | undefined }): Ready {
  const { plugins, rules, cgroup } = given
  return {
    interfaces: selectInterfaces(options.interfaces ?? 'all').map(({ name }) => name),
    cgroup,
    plugins: plugins.map(({ name, upstreams = [] }) => ({
      name: name || 'anonymous',
      upstreams: upstreams.map((upstream) => upstream.name),
    })),
    rules: rules.rules.length,
    default: options.default,
  }
}
