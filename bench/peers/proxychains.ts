import { file, type Side, upstream } from '../compare/side.ts'

export const proxychains: readonly Side[] = [
  {
    name: 'proxychains4',
    route: 'socks',
    apt: 'proxychains4',
    setup:
      '`strict_chain` with the one SOCKS5 server. It is no proxy but a library in the program (LD_PRELOAD), so its share runs on the CPU of the ends',
    wrap(stack) {
      const configuration = `strict_chain\nquiet_mode\n[ProxyList]\nsocks5 ${upstream} 1080\n`
      return ['proxychains4', '-q', '-f', file(stack, 'proxychains.conf', configuration)]
    },
  },
]
