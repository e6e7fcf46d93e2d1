// What a list adds to the cost of a datagram that a program sends, ours beside the kernel's other filters.
import { aimedDatagrams, aimedList } from './aimed.ts'
import { formatAddress } from './lists.ts'
import { measureSizes } from './sizes.ts'

const destinations = (count: number, flows: number) =>
  aimedDatagrams(aimedList(count), flows)
    .map(({ to, ip, dport }) => `${formatAddress(to, ip)} ${dport}\n`)
    .concat('\n')
    .join('')

await measureSizes('datagrams', {
  'Datagrams, each of another of 4096 connected sockets': (count) => [
    ['datagrams'],
    destinations(count, 4096),
  ],
  'Datagrams of one connected socket': (count) => [['datagrams'], destinations(count, 1)],
  'Datagrams of one unconnected socket to 4096 destinations': (count) => [
    ['unconnected'],
    destinations(count, 4096),
  ],
})
