// Runs in a host: loads the steering programs, attaches nothing, and lets them judge packets that nobody sends.
import { readlinkSync, statSync } from 'node:fs'
import { Action, MemoryBy, Steering } from '@tproxy/bpf'
import { type Packet, parseRule, type Rule, type RuleList } from '@tproxy/core'
import {
  type CompiledRules,
  compile,
  lookUp,
  matchRules,
  type Names,
  resolveList,
  systemNames,
  toQuestion,
} from '@tproxy/core/testing'
import * as fc from 'fast-check'
import { anyPacket, listOf, packetRule } from '../local/rules.ts'
import { type Dress, frame } from './packets.ts'

const machine = process.env['RIG_MACHINE']
if (machine === undefined || readlinkSync('/proc/self/ns/net') === machine)
  throw new Error('rig/judge.ts runs in a host of the rig only')

/** What programs at tc return (include/uapi/linux/pkt_cls.h). */
const results: Readonly<Record<number, string>> = { [-1]: 'next', 2: 'shot', 7: 'redirect' }

const system = systemNames()
const names: Names = { ...system }
const ifindexOf = (name = 'wan0') => system.interface(name)?.ifindex ?? 0

class Judge implements Disposable {
  readonly #steering = Steering.load({
    mark: 0x74700000,
    loIfindex: 1,
    netns: statSync('/proc/self/ns/net').ino,
    pidns: statSync('/proc/self/ns/pid').ino,
    scoped: 0,
    since: 0n,
  })
  #inForce = { generation: 0, rules: 0 }

  constructor() {
    for (const [slot, name] of ['wan0', 'wan1'].entries())
      this.#steering.setDevice(slot, { ifindex: ifindexOf(name), mac: Buffer.alloc(6, 2), hasMac: 1 })
  }

  use(list: RuleList): CompiledRules {
    const compiled = compile(resolveList(list, names), this.#inForce.generation + 1)
    this.#steering.rules.put({ ...compiled, again: false })
    this.#inForce = compiled
    return compiled
  }

  /** What becomes of a packet, and the rule that it was counted for, if for any. */
  ask(packet: Packet, dress: Dress = {}): { result: string | undefined; rule: number | undefined } {
    const before = this.#steering.rules.counts(this.#inForce)
    const result = this.#steering.tryPacket(frame(packet, dress), {
      ifindex: ifindexOf(packet.interface),
      mark: packet.mark,
    })
    const after = this.#steering.rules.counts(this.#inForce)
    const rule = after.findIndex(({ packets }, index) => packets !== before[index]?.packets)
    return { result: results[result], rule: rule < 0 ? undefined : rule }
  }

  /** How many of so many verdicts the kernel remembers, whether the last is one, and what becomes of those of other rules. */
  crowd(count: number): object {
    const destination = Buffer.alloc(16, 2)
    const memory = {
      until: process.hrtime.bigint() + 10n ** 12n,
      hits: 0n,
      generation: this.#inForce.generation,
      action: Action.direct,
    }
    const key = (uid: number) => ({ destination, uid, rule: 0, port: 80, by: MemoryBy.byDestination })
    for (let uid = 0; uid < count; uid++) this.#steering.rules.remember(key(uid), memory)
    const held = this.#steering.rules.remembered()
    const last = held.some(({ key: { uid } }) => uid === count - 1)
    const older = this.#steering.rules.remember(key(count), { ...memory, generation: 0 })
    this.use({ rules: [], default: 'proxy' })
    return { held: held.length, last, older, after: this.#steering.rules.remembered().length }
  }

  [Symbol.dispose](): void {
    this.#steering.close()
  }
}

/** Echo requests and everything but TCP resets are refused with an answer. */
const expected = ({ action }: { action: string }, packet: Packet) => {
  if (action === 'direct') return ['next']
  if (action === 'drop') return ['shot']
  if (action === 'proxy') return linkLocal(packet) ? ['next'] : ['redirect']
  return ['redirect', 'shot']
}

const linkLocal = ({ destination }: Packet) => /^(fe80:|ff|169\.254\.|22[4-9]|23)/.test(destination)

/** Neighbor discovery and forged marks of ours are other tests'. */
const dressed: fc.Arbitrary<Dress> = fc
  .record({ tags: fc.nat(2), extensions: fc.nat(4) })
  .map(({ tags, extensions }) => ({ ...(tags > 0 && { tags }), ...(extensions > 0 && { extensions }) }))

/** Numbers that look random, the same each time. */
const scatter = (number: number) => Math.imul(number + 1, 0x9e3779b1) >>> 0

/** Addresses of both families, prefixes of all kinds, ports; and behind them some rules that might say anything. */
function longList(count: number): Rule[] {
  const others = fc.sample(packetRule, { numRuns: 40, seed: 1 })
  const lines = Array.from({ length: count - others.length }, (_, i) => {
    const at = scatter(i)
    const [a, b, c] = [(at >>> 24) & 0xff, (at >>> 16) & 0xff, (at >>> 8) & 0xff]
    if (i % 2 === 0) return `drop tcp to 10.${a}.${b}.${c}/${[16, 22, 24, 32][i % 4]} dport ${at % 7}`
    if (i % 3 === 0) return `direct udp from 172.${a}.${b}.0/${[16, 20, 24][(i / 3) % 3]} sport ${at % 5}`
    return `reject to 2001:db8:${a}:${b}::/${[48, 64][at % 2]} dport ${at % 11}-${(at % 11) + 2}`
  })
  return [...lines.map(parseRule), ...others]
}

/** A packet near what the rule with that number of {@link longList} speaks of. */
function aimed(number: number): Packet {
  const at = scatter(number)
  const [a, b, c] = [(at >>> 24) & 0xff, (at >>> 16) & 0xff, (at >>> 8) & 0xff]
  const rest = { interface: 'wan0', mark: 0, dscp: 0, sport: at % 5, dport: at % 11 }
  if (number % 3 === 0)
    return { ...rest, ip: 6, protocol: 17, source: '2001:db8::1', destination: `2001:db8:${a}:${b}::${c}` }
  const [source, destination] = [`172.${a}.${b}.${c}`, `10.${a}.${b}.${c}`]
  return { ...rest, ip: 4, protocol: number % 2 === 0 ? 6 : 17, source, destination, dport: at % 7 }
}

const commands: Record<string, (judge: Judge) => object> = {
  /** Random rules and packets, against the rules as one would read them. */
  random(judge) {
    let [asked, matched] = [0, 0]
    const packets = fc.array(fc.tuple(anyPacket, dressed), { minLength: 30, maxLength: 30 })
    const fallback = fc.constantFrom('proxy', 'direct', 'drop')
    fc.assert(
      fc.property(listOf(packetRule), fallback, packets, (rules, action, all) => {
        const list: RuleList = { rules, default: action as 'proxy' }
        judge.use(list)
        // In IPv6, 0 is an extension header.
        for (const [{ uid: _, gid: __, process: ___, cgroups: ____, ...packet }, dress] of all) {
          if (packet.ip === 6 && packet.protocol === 0) continue
          const right = matchRules(list, packet)
          const found = judge.ask(packet, dress)
          asked++
          if (right.rule > 0) matched++
          // A tagged connection is not ours to proxy.
          const wanted = right.action === 'proxy' && dress.tags ? ['next'] : expected(right, packet)
          if (found.rule !== right.rule || !wanted.includes(found.result ?? ''))
            throw new Error(JSON.stringify({ list, packet, dress, right, found }))
        }
      }),
      { numRuns: Number(process.argv[3] ?? 100) },
    )
    return { asked, matched }
  },

  /** A list whose rows are longer than one summary tells word by word, and packets that many of its rules speak of. */
  long(judge) {
    const rules = longList(Number(process.argv[3]))
    const list: RuleList = { rules, default: 'direct' }
    const compiled = judge.use(list)
    const winners = new Set<number>()
    for (let number = 0; number < 250; number++) {
      const packet = aimed(number)
      const right = matchRules(list, packet)
      const found = judge.ask(packet)
      const explained = lookUp(compiled, toQuestion(packet, names)).rule
      if (found.rule !== right.rule || explained !== right.rule)
        throw new Error(JSON.stringify({ packet, right, found, explained }))
      winners.add(right.rule)
    }
    return { winners: winners.size }
  },

  /** More remembered verdicts than there is room for. */
  memories(judge) {
    judge.use({ rules: [], default: 'proxy' })
    return judge.crowd(Number(process.argv[3]))
  },

  /** Given rules and packets, one after the other. */
  these(judge) {
    const { rules, packets } = JSON.parse(process.argv[3] ?? '') as {
      rules: string[]
      packets: { packet: Packet; dress?: Dress }[]
    }
    judge.use({ rules: rules.map(parseRule), default: 'proxy' })
    return packets.map(({ packet, dress }) => judge.ask(packet, dress))
  },
}

using judge = new Judge()
console.log(JSON.stringify(commands[process.argv[2] ?? '']?.(judge)))
