// What a look-up costs by itself: BPF_PROG_RUN over 8192 packets of as many flows, less what a program costs that only
// fetches the packet; beside linear search in the same list. Every verdict of both is checked.
import { execFileSync } from 'node:child_process'
import { closeSync } from 'node:fs'
import { bpf, runProgram, withLibbpfLog } from '../../packages/bpf/src/ffi.ts'
import { Capacity } from '../../packages/bpf/src/layout.gen.ts'
import { compile } from '../../packages/core/src/rules/compiled/compile.ts'
import { systemNames } from '../../packages/core/src/rules/names.ts'
import { readRules, resolveList } from '../../packages/core/src/rules/read.ts'
import {
  asRule,
  type Family,
  makeList,
  makePackets,
  type Packet,
  type PlainRule,
  type Prefix,
  plainMatcher,
} from './lists.ts'
import { compiled, median, printTable, writeResults } from './report.ts'

// Of two CPUs, the first takes most interrupts.
execFileSync('taskset', ['-pc', '1', `${process.pid}`])

const flows = 8192
const sizes: readonly [Family, number][] = [
  ...([4, 6] as const).flatMap((family) =>
    [1, 10, 16, 100, 1000, 5000, 10_000].map((rules) => [family, rules] as [Family, number]),
  ),
  ['mixed', 1000],
  ['mixed', 10_000],
]

const loaded = withLibbpfLog(() => {
  const opened = bpf.open('open', compiled('classify.bpf.c'), null)
  bpf.load('load', opened)
  return opened
})
if (!('result' in loaded)) throw new Error(loaded.log, { cause: loaded.error })
const object = loaded.result
const map = (name: string) => bpf.mapFd('find', bpf.findMap('find', object, name))
const program = (name: string) => bpf.programFd('find', bpf.findProgram('find', object, name))
const [packets, winners, plainRules, plainCount] = ['packets', 'winners', 'plain_rules', '.data.plain'].map(
  map,
) as [number, number, number, number]
const programs = { empty: program('empty'), linear: program('linear'), bitvector: program('bitvector') }

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

const listMaps: Readonly<Record<number, string>> = {
  [Capacity.small]: 'rules_small',
  [Capacity.medium]: 'rules_medium',
  [Capacity.large]: 'rules_large',
  [Capacity.huge]: 'rules_huge',
}
let inForce: string | undefined

/** As RulesInForce.put does. */
function swap(bytes: Buffer): void {
  const [arrayMap, name] = [2, listMaps[bytes.length - Capacity.slack] ?? '']
  const list = bpf.createMap('create', arrayMap, 'rules', 4, bytes.length, 1, null)
  bpf.updateElement('fill', list, u32(0), bytes, 0)
  bpf.updateElement('put', map(name), u32(0), u32(list), 0)
  if (inForce !== undefined && inForce !== name) bpf.deleteElement(map(inForce), u32(0))
  inForce = name
  // The map that it is in holds it.
  closeSync(list)
}

/** v4-mapped, as two halves of network order. */
function halves(address: bigint, ip: 4 | 6): Buffer {
  const whole = ip === 6 ? address : (0xffffn << 32n) | address
  const bytes = Buffer.alloc(16)
  bytes.writeBigUInt64BE(whole >> 64n, 0)
  bytes.writeBigUInt64BE(whole & 0xffffffffffffffffn, 8)
  return bytes
}

function question(packet: Packet): Buffer {
  const bytes = Buffer.alloc(80)
  halves(packet.from, packet.ip).copy(bytes, 0)
  halves(packet.to, packet.ip).copy(bytes, 16)
  bytes.writeUInt16BE(packet.sport, 32)
  bytes.writeUInt16BE(packet.dport, 34)
  bytes.set([packet.ip === 6 ? 1 : 0, packet.protocol, 0, 1], 36)
  return bytes
}

function plainRule({ ip, to, from, protocol, dport }: PlainRule): Buffer {
  const swapped = (bytes: Buffer) => Buffer.concat([bytes.subarray(8), bytes.subarray(0, 8)])
  const whole = 128n
  const masked = (prefix: Prefix | undefined) => {
    if (prefix === undefined) return Buffer.alloc(32)
    const rest = BigInt((ip === 4 ? 32 : 128) - prefix.length)
    const mask = (((1n << whole) - 1n) >> rest) << rest
    return Buffer.concat([swapped(halves(prefix.address, ip)), swapped(halves(mask, 6))])
  }
  const tail = Buffer.alloc(8)
  tail.writeUInt16LE(dport?.[0] ?? 0, 0)
  tail.writeUInt16LE(dport?.[1] ?? 0xffff, 2)
  tail.set([ip === 6 ? 1 : 0, protocol ?? 0], 4)
  return Buffer.concat([masked(to), masked(from), tail])
}

const frame = Buffer.alloc(64)
frame.writeUInt16BE(0x0800, 12)
const run = (name: keyof typeof programs, rounds: number) =>
  runProgram('run', programs[name], frame, { repeat: flows * rounds }).nanoseconds

/** Of all three alike. */
const turns = 8

/** The least of many, the programs in turn: what else runs here only adds. */
function measure(): Record<keyof typeof programs, number> {
  const names = ['empty', 'linear', 'bitvector'] as const
  const least = { empty: Infinity, linear: Infinity, bitvector: Infinity }
  // About 5 ms each, and every flow at least once.
  const rounds = Object.fromEntries(
    names.map((name) => [name, Math.max(1, Math.round(5e6 / flows / (run(name, 1) + 1)))]),
  )
  for (let turn = 0; turn < turns; turn++)
    for (const name of turn % 2 === 0 ? names : names.toReversed())
      least[name] = Math.min(least[name], run(name, rounds[name] ?? 1))
  return least
}

function wrongOf(name: keyof typeof programs, expected: readonly number[]): number {
  for (let index = 0; index < flows; index++)
    bpf.updateElement('clear', winners, u32(index), u32(0xfffffffe), 0)
  run(name, 1)
  const winner = Buffer.alloc(4)
  return expected.filter((rule, index) => {
    bpf.lookupElement(winners, u32(index), winner)
    return winner.readUInt32LE() !== rule
  }).length
}

const timed = <T>(work: () => T): [T, number] => {
  const start = performance.now()
  return [work(), performance.now() - start]
}

const rows = sizes.map(([family, count]) => {
  const rules = makeList(count, family)
  const resolved = resolveList(readRules(rules.map(asRule)), systemNames())
  const compilations = Array.from({ length: 3 }, () => timed(() => compile(resolved, 1)))
  const list = compilations[0]?.[0] as ReturnType<typeof compile>
  const swaps = Array.from({ length: 5 }, () => timed(() => swap(list.bytes))[1])
  for (const [index, rule] of rules.entries())
    bpf.updateElement('rule', plainRules, u32(index), plainRule(rule), 0)
  bpf.updateElement('count', plainCount, u32(0), u32(count), 0)
  const sent = makePackets(rules, flows)
  for (const [index, packet] of sent.entries())
    bpf.updateElement('packet', packets, u32(index), question(packet), 0)

  const expected = sent.map(plainMatcher(rules))
  const wrong = wrongOf('bitvector', expected) + wrongOf('linear', expected)
  const { empty, linear, bitvector } = measure()
  return {
    family,
    rules: count,
    ns: bitvector - empty,
    linearNs: linear - empty,
    matched: expected.filter((rule) => rule > 0).length / flows,
    wrong,
    compileMs: Math.max(...compilations.map(([, ms]) => ms)),
    bytes: list.length,
    mapBytes: list.bytes.length,
    swapMs: median(swaps),
  }
})

printTable(
  'Look-up, net ns a packet, every packet of another flow',
  rows.map((row) => ({
    family: `${row.family}`,
    rules: row.rules,
    ns: row.ns,
    'linear ns': row.linearNs,
    'times faster': (row.linearNs / row.ns).toFixed(1),
    matched: `${Math.round(row.matched * 100)}%`,
    wrong: row.wrong,
    'compile ms': row.compileMs.toFixed(1),
    kB: row.bytes / 1024,
    'swap ms': row.swapMs.toFixed(1),
  })),
)
writeResults(
  'lookup',
  rows.map((row) => ({
    ...row,
    matched: Number(row.matched.toFixed(3)),
    compileMs: Number(row.compileMs.toFixed(1)),
    swapMs: Number(row.swapMs.toFixed(1)),
  })),
)
const wrong = rows.reduce((sum, row) => sum + row.wrong, 0)
if (wrong > 0) throw new Error(`${wrong} wrong verdicts`)
