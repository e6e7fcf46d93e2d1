import type { RuleEvent, Session } from '@tproxy/core'
import { expect, it } from 'vitest'
import { readyLine, reloadedLine, ruleLine, sessionLine } from './lines.ts'

const plain = (_style: string, text: string) => text
const facts = {
  connection: {
    source: { address: '198.51.100.2', port: 4000, family: 4 },
    destination: { address: '203.0.113.10', port: 443, family: 4 },
    process: { name: 'curl', pid: 4711, uid: 0, gid: 0, cgroup: '/' },
  },
  verdict: { kind: 'via' },
  plugin: 'socks',
  upstream: 'socks5://127.0.0.1:1080',
  bytes: { sent: 1234, received: 14_000 },
  durationMs: 35,
}
const sessionEnding = (end: unknown) => ({ ...facts, end }) as unknown as Session

it('tells a session in one line', () => {
  expect(sessionLine(sessionEnding({ how: 'closed' }), plain).replaceAll(/ +/g, ' ')).toBe(
    'curl[4711] → 203.0.113.10:443 via socks5://127.0.0.1:1080 (socks) ↑ 1.2 kB ↓ 14 kB 35 ms closed',
  )
})

it('shows the name that was peeked at', () => {
  const peeked = { protocol: 'tls', name: 'a.example' }
  const session = { ...facts, connection: { ...facts.connection, peeked } }
  expect(sessionLine(session as never, plain)).toContain('→ 203.0.113.10:443 (a.example)  via')
})

it('says why a session failed, and who reset one', () => {
  const failed = sessionEnding({ how: 'failed', error: new Error('refused') })
  expect(sessionLine(failed, plain)).toMatch(/ {2}failed: refused$/)
  expect(sessionLine(sessionEnding({ how: 'reset', by: 'client' }), plain)).toMatch(/reset by the program$/)
})

it('says what is intercepted, and who is asked in which order', () => {
  const ready = {
    interfaces: ['eth0', 'wlan0'],
    cgroup: undefined,
    plugins: [
      { name: 'office', upstreams: [] },
      { name: 'socks', upstreams: ['socks5://h:1080'] },
    ],
    rules: 1,
    default: 'drop' as const,
    adopted: 0,
    fastpath: { mode: 'off' as const },
  }
  expect(readyLine(ready, plain)).toBe(
    'ready  all programs on eth0, wlan0: 1 rule → office → socks (socks5://h:1080) → drop',
  )
  expect(readyLine({ ...ready, adopted: 3 }, plain)).toMatch(/ → drop {2}\(3 adopted\)$/)
})

it('tells what a rule decided', () => {
  const event: RuleEvent = {
    time: new Date(),
    rule: 2,
    action: 'drop',
    protocol: 17,
    source: { address: '198.51.100.2', port: 4000, family: 4 },
    destination: { address: '203.0.113.10', port: 53, family: 4 },
    interface: 'eth0',
    bytes: 57,
    process: undefined,
  }
  expect(ruleLine(event, plain)).toBe(
    'rule 2 drop  198.51.100.2:4000 → 203.0.113.10:53        udp  eth0  57 B',
  )
})

it('tells what was reloaded, and what was not', () => {
  const reloaded = { rules: 1, default: 'proxy', plugins: [], verdict: 'direct', restart: [] } as const
  expect(reloadedLine({ ...reloaded, restart: ['mark'] }, plain)).toBe(
    'reloaded  1 rule → proxy  changed, but only a restart puts it in force: mark',
  )
  expect(reloadedLine({ ...reloaded, plugins: ['socks', 'http'] }, plain)).toBe(
    'reloaded  1 rule → proxy: socks → http → direct',
  )
})
