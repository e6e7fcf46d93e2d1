// No proxy: the ceiling. Programs that know the upstream ask it by themselves.
import type { Side } from '../compare/side.ts'

const setup = 'no proxy in between'
const again = 'a second one like it: what it differs by is noise'

export const none: readonly Side[] = [
  // Of the two ends.
  { name: 'no proxy', route: 'origin', setup, descriptors: 1 },
  { name: 'no proxy, again', route: 'origin', setup: again },
  { name: 'by itself', route: 'socks', asks: 'socks', setup: 'the program speaks SOCKS5 by itself' },
  { name: 'by itself', route: 'http', asks: 'http', setup: 'the program speaks CONNECT by itself' },
  { name: 'no proxy', route: 'alone', setup },
  { name: 'no proxy, again', route: 'alone', setup: again },
]
