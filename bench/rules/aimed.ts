// Lists for real packets. These may only go to addresses of documentation (RFC 5737), which random rules hardly ever name,
// so some rules of a list are aimed at them.
import { makeList, makePackets, type Packet, type PlainRule, plainMatcher, tcp, udp } from './lists.ts'

const prefix = (first: number, second: number, third: number) => ({
  address: BigInt(((first << 24) | (second << 16) | (third << 8)) >>> 0),
  length: 24,
})
const client = prefix(198, 51, 100).address + 2n
const [connectionsTo, datagramsTo] = [prefix(203, 0, 113), prefix(192, 0, 2)]

/** Above the ports that random rules name. */
export const originPort = 5000
const firstPort = 10_000

const connection: Packet = {
  ...{ ip: 4, from: client, to: connectionsTo.address + 1n, protocol: tcp },
  ...{ sport: 40_000, dport: originPort },
}
const datagram: Packet = { ...connection, to: datagramsTo.address + 1n, protocol: udp, dport: firstPort }

/**
 * Every fourth rule lets some of our datagrams pass and the middle one our connections, the other rules are random and
 * match neither: so linear search walks half of the list on average. A list of one rule has just one for datagrams.
 */
export function aimedList(count: number): PlainRule[] {
  const strangers = makeList(count + 500, 4).filter((rule) => {
    const match = plainMatcher([rule])
    return match(connection) === 0 && match(datagram) === 0
  })
  const ports = Math.floor(50_000 / count)
  return strangers.slice(0, count).map((rule, index): PlainRule => {
    if (index > 0 && index === count >> 1)
      return { ip: 4, to: connectionsTo, protocol: tcp, dport: [originPort, originPort], accept: true }
    if (index % 4 !== 0) return rule
    const low = firstPort + index * ports
    return { ip: 4, to: datagramsTo, protocol: udp, dport: [low, low + ports - 1], accept: true }
  })
}

/** Datagrams that the aimed rules of a list match, but for a tenth, which no rule does. */
export function aimedDatagrams(rules: readonly PlainRule[], count: number): Packet[] {
  const aimed = rules.filter(({ to }) => to === datagramsTo)
  return makePackets(aimed, count, { fixed: { from: client, protocol: udp } })
}
