import * as fc from 'fast-check'
import type { Rule } from '../../packages/core/src/rules/model.ts'
import type { Packet } from '../../packages/core/src/rules/reference.ts'
/** Rules over all that a packet without a known program has. */
export declare const packetRule: fc.Arbitrary<Rule>
/** Rules over everything. */
export declare const anyRule: fc.Arbitrary<Rule>
/** Packets of both families that such rules often match. */
export declare const anyPacket: fc.Arbitrary<Packet>
/** Rule lists: mostly short, some longer than a word of the kernel's rows. */
export declare const listOf: (rule: fc.Arbitrary<Rule>) => fc.Arbitrary<Rule[]>
