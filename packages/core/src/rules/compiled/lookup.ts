import {
  dimensionSize,
  Field,
  nodeSize,
  Ref,
  readDimension,
  readNode,
  readRuleset,
  readVerdict,
  verdictSize,
} from '@tproxy/bpf'
import type { CompiledRules } from './compile.ts'

/** What rules ask of a packet, as numbers; what is undefined is not known. */
export interface Question {
  readonly ip: 4 | 6
  readonly source: bigint
  readonly destination: bigint
  readonly protocol: number
  readonly sport: number
  readonly dport: number
  readonly interface: number | undefined
  readonly mark: number
  readonly dscp: number
  readonly uid: number | undefined
  readonly gid: number | undefined
  /** As `Conditions.process`. */
  readonly process: bigint | undefined
  /** Ids of the cgroup and those above it, the highest first. */
  readonly cgroups: readonly bigint[] | undefined
}

/** Names of fields, as people write them. */
export type FieldName =
  | 'to'
  | 'from'
  | 'protocol or dport'
  /** These two of a packet whose port is not given. */
  | 'protocol'
  | 'dport'
  | 'sport'
  | 'uid'
  | 'gid'
  | 'process'
  | 'cgroup'
  | 'interface'
  | 'mark'
  | 'dscp'

/** What the compiled rules answer. */
export interface Answer {
  /** Number of the rule, from 1; 0: the default. */
  readonly rule: number
  readonly action: number
  /** All rules that match, by number. */
  readonly matching: readonly number[]
  /** Why a rule does not match: the fields that speak against it. None: it does. */
  readonly against: (rule: number) => FieldName[]
}

/** Looks a packet up as `LIST(ask)` of lookup.h does, in the same bytes. */
export function lookUp({ bytes }: CompiledRules, question: Question): Answer {
  const ruleset = readRuleset(bytes)
  const dimensions = Buffer.from(ruleset.dimensions)
  const dimension = (field: number) => readDimension(dimensions, field * dimensionSize)
  const isNode = (ref: number) => (ref & Ref.node) !== 0
  const positionOf = (ref: number) => (ref & ~Ref.node & ~Ref.lower) >>> 0

  const tables = (field: number, ...indexes: number[]): number => {
    let ref = dimension(field).root
    for (const index of indexes) if (isNode(ref)) ref = bytes.readUInt32LE(positionOf(ref) + index * 4)
    return ref
  }
  const descend = (from: number, key: bigint): number => {
    let ref = from
    while (isNode(ref)) {
      const at = positionOf(ref)
      const { base, shift, count } = readNode(bytes, at)
      const index = (key >> BigInt(shift)) - base + 1n
      const entry = index < 0n ? 0 : index > BigInt(count) + 1n ? count + 1 : Number(index)
      ref = bytes.readUInt32LE(at + nodeSize + entry * 4)
    }
    return ref
  }
  const node = (field: number, key: bigint | number | undefined): number => {
    const { root, absent } = dimension(field)
    return key === undefined ? absent : descend(root, BigInt(key))
  }
  const wide = (field: number, key: bigint | undefined): number => {
    const { root, absent } = dimension(field)
    if (key === undefined) return absent
    const ref = descend(root, key >> 64n)
    return (ref & Ref.lower) === 0 ? ref : descend((ref | Ref.node) >>> 0, key & ((1n << 64n) - 1n))
  }
  const address = (v4: number, v6: number, value: bigint): number => {
    if (question.ip === 6) return wide(v6, value)
    const number = Number(value)
    return dimension(v4).depth > 0
      ? descend(tables(v4, number >>> 16), value & 0xffffn)
      : tables(v4, number >>> 16, (number >>> 8) & 0xff, number & 0xff)
  }
  const cgroup = (): number => {
    const { root, absent } = dimension(Field.cgroup)
    if (!isNode(root)) return absent
    if (question.cgroups === undefined) return descend(root, 0n)
    return question.cgroups.map((id) => descend(root, id)).findLast((row) => row !== 0) ?? absent
  }

  const rows: [FieldName, number][] = [
    ['to', address(Field.to4, Field.to6, question.destination)],
    ['from', address(Field.from4, Field.from6, question.source)],
    ['protocol or dport', tables(Field.service, question.protocol, question.dport)],
    ['sport', tables(Field.sport, question.sport)],
  ]
  if (ruleset.extended !== 0)
    rows.push(
      ['uid', node(Field.uid, question.uid)],
      ['gid', node(Field.gid, question.gid)],
      ['process', wide(Field.process, question.process)],
      ['cgroup', cgroup()],
      ['interface', node(Field.interface, question.interface)],
      ['mark', node(Field.mark, question.mark)],
      ['dscp', node(Field.dscp, question.dscp)],
    )

  const { group } = ruleset
  const numberOf = (bit: number) => bytes.readUInt16LE(ruleset.order + bit * 2)
  /** Words of 32 bits in a group. */
  const size = Math.max(1, group) * 2
  const summaryOf = (row: number) => (group === 0 ? 1n : bytes.readBigUInt64LE(row))
  /** Where the words of a group are in a row that has some. */
  const groupOf = (row: number, index: number) => {
    if (group === 0) return row
    const before = population(summaryOf(row) & ((1n << BigInt(index)) - 1n))
    return group === 1 ? row + 8 + before * 8 : bytes.readUInt32LE(row + 8 + before * 4)
  }
  const matching: number[] = []
  // A list of thousands of rules is asked for each of them: groups without a match are passed over.
  let summaries = rows.reduce((common, [, row]) => common & summaryOf(row), -1n)
  for (let index = 0; summaries !== 0n; index++, summaries >>= 1n) {
    if ((summaries & 1n) === 0n) continue
    const groups = rows.map(([, row]) => groupOf(row, index))
    for (let word = 0; word < size; word++) {
      let bits = groups.reduce((common, at) => common & bytes.readUInt32LE(at + word * 4), -1)
      for (; bits !== 0; bits &= bits - 1)
        matching.push(numberOf((index * size + word) * 32 + 31 - Math.clz32(bits & -bits)))
    }
  }
  matching.sort((a, b) => a - b)
  const winner = matching[0] ?? 0
  return {
    rule: winner,
    action: readVerdict(bytes, ruleset.verdicts + winner * verdictSize).action,
    matching,
    against: (rule) => {
      let bit = 0
      while (numberOf(bit) !== rule) bit++
      const [word, index] = [bit >>> 5, Math.floor((bit >>> 5) / size)]
      const has = (row: number) =>
        ((summaryOf(row) >> BigInt(index)) & 1n) !== 0n &&
        (bytes.readUInt32LE(groupOf(row, index) + (word % size) * 4) & (1 << (bit & 31))) !== 0
      return rows.filter(([, row]) => !has(row)).map(([name]) => name)
    },
  }
}

function population(bits: bigint): number {
  let count = 0
  for (let left = bits; left !== 0n; left &= left - 1n) count++
  return count
}
