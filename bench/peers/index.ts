import type { Side } from '../compare/side.ts'
import { haproxy } from './haproxy.ts'
import { mitmproxy } from './mitmproxy.ts'
import { again, none } from './none.ts'
import { proxychains } from './proxychains.ts'
import { redsocks } from './redsocks.ts'
import { relays } from './relay.ts'
import { tproxy } from './tproxy.ts'
import { v2ray } from './v2ray.ts'

/** All that are compared; a route's first is what its others are compared with. */
export const sides: readonly Side[] = [
  ...none,
  ...tproxy,
  ...relays,
  ...haproxy,
  ...v2ray,
  ...redsocks,
  ...mitmproxy,
  ...proxychains,
  ...again,
]
