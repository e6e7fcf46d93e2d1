import { expect, it } from 'vitest'
import type { TraceLine } from '../control/protocol.ts'
import { lines } from './lines.ts'

it('shows no password that an upstream says', () => {
  const place = { address: '192.0.2.1', port: 1 }
  const line: TraceLine = {
    event: 'end',
    timeMs: 0,
    how: 'failed',
    error: 'socks5://user:secret@192.0.2.2: refused\nand more',
    session: {
      id: 1,
      source: place,
      destination: place,
      verdict: 'via',
      carried: 'relay',
      bytes: { sent: 0, received: 0 },
    },
  }
  const [text] = lines()(line)
  expect(text).toContain('socks5://192.0.2.2: refused')
  expect(text).not.toContain('secret')
  expect(text).not.toContain('\n')
})
