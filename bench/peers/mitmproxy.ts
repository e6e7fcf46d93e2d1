import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { proxyPort, redirect, type Side, startPeer } from '../compare/side.ts'

export const mitmproxy: readonly Side[] = [
  {
    name: 'mitmproxy',
    route: 'origin',
    apt: 'mitmproxy',
    setup:
      '`mitmdump --mode transparent --ignore-hosts .*`: it hands the bytes on without looking at or keeping them; nftables REDIRECT',
    steer: redirect,
    start(world, stack) {
      const directory = mkdtempSync(`${tmpdir()}/bench-`)
      stack.defer(() => rmSync(directory, { recursive: true }))
      const words = ['mitmdump', '-q', '--mode', 'transparent', '--listen-port', `${proxyPort}`]
      return startPeer(world, [...words, '--ignore-hosts', '.*', '--set', `confdir=${directory}`])
    },
  },
]
