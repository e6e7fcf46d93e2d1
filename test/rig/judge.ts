// Runs in a host: loads the steering programs, attaches nothing, and lets them judge packets that nobody sends.
import { readlinkSync, statSync } from 'node:fs'
import { Action, MemoryBy, Steering } from '@tproxy/bpf'
import { type Packet, parseRule, type RuleList } from '@tproxy/core'
import { compile, matchRules, type Names, resolveList, systemNames } from '@tproxy/core/testing'
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
  })
  #generation = 0

  constructor() {
    for (const [slot, name] of ['wan0', 'wan1'].entries())
      this.#steering.setDevice(slot, { ifindex: ifindexOf(name), mac: Buffer.alloc(6, 2), hasMac: 1 })
  }

  use(list: RuleList): void {
    const compiled = compile(resolveList(list, names), ++this.#generation)
    this.#steering.setRules({ ...compiled, again: false })
  }

  /** What becomes of a packet, and the rule that it was counted for, if for any. */
  ask(packet: Packet, dress: Dress = {}): { result: string | undefined; rule: number | undefined } {
    const before = this.#steering.ruleCounts()
    const result = this.#steering.tryPacket(frame(packet, dress), {
      ifindex: ifindexOf(packet.interface),
      mark: packet.mark,
    })
    const after = this.#steering.ruleCounts()
    const rule = after.findIndex(({ packets }, index) => packets !== before[index]?.packets)
    return { result: results[result], rule: rule < 0 ? undefined : rule }
  }

  /** How many of so many verdicts the kernel remembers, whether the last is one, and what becomes of those of other rules. */
  crowd(count: number): object {
    const destination = Buffer.alloc(16, 2)
    const memory = {
      until: process.hrtime.bigint() + 10n ** 12n,
      hits: 0n,
      generation: this.#generation,
      action: Action.direct,
    }
    const key = (uid: number) => ({ destination, uid, rule: 0, port: 80, by: MemoryBy.byDestination })
    for (let uid = 0; uid < count; uid++) this.#steering.remember(key(uid), memory)
    const held = this.#steering.memories()
    const last = held.some(({ key: { uid } }) => uid === count - 1)
    const older = this.#steering.remember(key(count), { ...memory, generation: 0 })
    this.use({ rules: [], default: 'proxy' })
    return { held: held.length, last, older, after: this.#steering.memories().length }
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
