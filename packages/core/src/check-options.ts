import { inspect } from 'node:util'
import { TproxyError } from './errors.ts'
import type { Decisions, ProxyOptions } from './proxy.ts'
import { nearest } from './rules/nearest.ts'
import type { InterceptOptions } from './tc/intercept-options.ts'
import type { RoutingOptions } from './tc/routing.ts'
import { isVerdict } from './verdict.ts'

/** What an option may be. */
interface Kind {
  readonly expected: string
  fits(value: unknown): boolean
}

const oneOf = (...values: readonly unknown[]): Kind => ({
  // Not before somebody asks: the first formatter takes 15 ms to make.
  get expected() {
    return new Intl.ListFormat('en-GB', { type: 'disjunction' }).format(values.map(String))
  },
  fits: (value) => values.includes(value),
})
const isWord = (value: unknown) => typeof value === 'string' && value !== ''
const trueOrFalse = oneOf(true, false)
const list: Kind = { expected: 'a list', fits: Array.isArray }
const mapping: Kind = {
  expected: 'a mapping',
  fits: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
}
/** Who reads it checks it. */
const checkedLater: Kind = { expected: 'anything', fits: () => true }

const routing: Record<keyof RoutingOptions, Kind> = {
  mark: checkedLater,
  table: checkedLater,
  priority: checkedLater,
}

const interception: Record<keyof InterceptOptions, Kind> = {
  interfaces: {
    expected: 'auto, all, or a list of names',
    fits: (value) => value === 'auto' || value === 'all' || (Array.isArray(value) && value.every(isWord)),
  },
  cgroup: { expected: 'the path of a cgroup', fits: isWord },
  failClosed: trueOrFalse,
  rules: list,
  defaultAction: checkedLater,
  timeouts: mapping,
  carry: oneOf('splice', 'relay'),
  keepSpliced: trueOrFalse,
  fastpath: oneOf('to-proxy', 'both', 'off'),
  routing: mapping,
}

const proxy: Record<keyof ProxyOptions, Kind> = {
  plugins: checkedLater,
  default: { expected: 'a verdict: direct(), drop() or via(upstream)', fits: isVerdict },
  names: trueOrFalse,
  transport: mapping,
  ...interception,
}

const decisions: Record<keyof Decisions, Kind> = {
  plugins: proxy.plugins,
  default: proxy.default,
  rules: proxy.rules,
  defaultAction: proxy.defaultAction,
  reset: trueOrFalse,
}

/** Throws `E_OPTION` for one that does not exist, or is not what it may be: types are for those who use TypeScript. */
export function checkInterceptOptions(options: InterceptOptions): void {
  check(options, interception)
  if (options.routing !== undefined) check(options.routing, routing, 'routing.')
}

/** The same for all of a proxy. */
export function checkProxyOptions(options: ProxyOptions): void {
  check(options, proxy)
  if (options.routing !== undefined) check(options.routing, routing, 'routing.')
}

/** The same for what replaces a part of them. */
export function checkDecisions(options: Decisions): void {
  check(options, decisions)
}

function check(options: object, kinds: Readonly<Record<string, Kind>>, within = ''): void {
  for (const [name, value] of Object.entries(options)) {
    const kind = Object.hasOwn(kinds, name) ? kinds[name] : undefined
    if (kind === undefined)
      throw new TproxyError('E_OPTION', `there is no option ${within}${name}`, { hint: instead(name, kinds) })
    if (value !== undefined && !kind.fits(value))
      throw new TproxyError(
        'E_OPTION',
        `${within}${name} is ${inspect(value, { depth: 0, breakLength: Infinity })}`,
        {
          hint: kind.expected,
        },
      )
  }
}

function instead(name: string, kinds: object): string {
  const near = nearest(name, Object.keys(kinds))
  return near === undefined ? `there are ${Object.keys(kinds).join(', ')}` : `did you mean ${near}?`
}
