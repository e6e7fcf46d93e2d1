/**
 * Transparent interception of TCP connections as an RxJS stream.
 *
 * ```ts
 * await using proxy = await TransparentProxy.open({ interfaces: ['eth0'], plugins: [socks({ url: 'socks5://host:1080' })] })
 * proxy.sessions.subscribe(({ connection, verdict }) => console.log(connection.destination, verdict.kind))
 * ```
 *
 * @module
 */
export { Connection } from './connection.ts'
export { type DefinedPlugin, definePlugin, type PluginDefinition, type PluginText } from './define-plugin.ts'
export { type Endpoint, endpoint, formatEndpoint } from './endpoint.ts'
export { type ErrorCode, reason, TproxyError } from './errors.ts'
export type { Interception } from './interception.ts'
export { type FastpathMode, type FastpathState, type Limits, limits, type Timeouts } from './options.ts'
export type { Peeked } from './peek/peek.ts'
export { placesOf, type SourcePlace } from './place.ts'
export { ask, type Decision, type Plugin, type PluginFactory } from './plugin.ts'
export type { ProcessInfo } from './process.ts'
export { type Decisions, intercept, type ProxyOptions, TransparentProxy } from './proxy.ts'
export { reset } from './relay.ts'
export type { Remember, Remembered } from './remember.ts'
export type { Explanation, ReplaceOptions, RuleCount, RuleEvent, Rules, Shadow } from './rules/control.ts'
export { examineNames, examineRules, type RuleFinding } from './rules/examine.ts'
export { misfit } from './rules/fields.ts'
export { formatRule } from './rules/format.ts'
export type { Action, Criteria, OneOf, Rule, RuleList } from './rules/model.ts'
export { nearest } from './rules/nearest.ts'
export type { Packet } from './rules/reference.ts'
export { compileRules, type RuleTables } from './rules/tables.ts'
export {
  contradiction,
  isAction,
  type Place,
  parseRule,
  parseRuleAt,
  parseRuleList,
  type RuleLines,
  type RuleProblem,
  readRuleLines,
} from './rules/text.ts'
export { codePoints, parseDscp, parseProtocol, protocols } from './rules/values.ts'
export { type ServiceManager, serviceManager } from './service-manager.ts'
export type { Session, SessionEnd } from './session.ts'
export { type Cgroup, makeCgroup } from './tc/cgroup.ts'
export { type Inspection, inspect } from './tc/inspect.ts'
export { clean, instances } from './tc/instances.ts'
export type { InterceptOptions } from './tc/intercept-options.ts'
export { type Interface, type InterfaceSelection, selectInterfaces } from './tc/interfaces.ts'
export type { RoutingOptions } from './tc/routing.ts'
export { UpstreamSocket } from './tc/upstream-socket.ts'
export type { TraceHook, TraceStep, TraceTarget } from './trace.ts'
export type {
  Accepted,
  Adopted,
  LazyStream,
  Memories,
  Splice,
  SpliceListener,
  Transport,
} from './transport.ts'
export { type Destination, formatDestination, type Upstream } from './upstream.ts'
export {
  type CarryOptions,
  type DirectOptions,
  direct,
  drop,
  isVerdict,
  type Transforms,
  type Verdict,
  via,
} from './verdict.ts'
