/**
 * For tests of plugins and of what is built on the stream, without privileges: connections that claim to be others, upstreams
 * that answer in this process, and what a plugin decides about one connection.
 *
 * ```ts
 * const verdict = await verdictOf(office({ url }), { destination: { address: '203.0.113.1', port: 25 } })
 * expect(verdict).toEqual(drop())
 * ```
 *
 * @module
 */

// The parts that compiled rules are made of, to be compared with matchRules.
export { type CompiledRules, compile } from './rules/compiled/compile.ts'
export { lookUp } from './rules/compiled/lookup.ts'
export { explain, toQuestion } from './rules/explain.ts'
export { type Names, systemNames } from './rules/names.ts'
export { resolveList } from './rules/read.ts'
export { matchRules } from './rules/reference.ts'
export { shadowed } from './rules/shadowed.ts'
export { type Claim } from './testing/claim.ts'
export { LocalTransport } from './testing/local-transport.ts'
export { TestUpstream } from './testing/test-upstream.ts'
export { verdictOf } from './testing/verdict-of.ts'
