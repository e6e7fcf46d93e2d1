// No proxy: the ceiling. Programs that know the upstream ask it by themselves.
import type { Side } from '../compare/side.ts'

const setup = 'no proxy in between'

export const none: readonly Side[] = [
  // Of the two ends.
  { name: 'no proxy', route: 'origin', setup, descriptors: 1 },
  { name: 'by itself', route: 'socks', asks: 'socks', setup: 'the program speaks SOCKS5 by itself' },
  { name: 'by itself', route: 'http', asks: 'http', setup: 'the program speaks CONNECT by itself' },
  { name: 'no proxy', route: 'alone', setup },
]

/** To be the last of their routes, as far from the first as a peer may be. */
export const again: readonly Side[] = none.map(({ name, route, asks }) => ({
  name: `${name}, again`,
  route,
  setup: 'a second one like the first: what it differs by is noise',
  ...(asks && { asks }),
}))
