import { describe, expect, test } from 'vitest'
import { TransparentProxy } from './proxy.ts'
import type { Remember, Remembered } from './remember.ts'
import { LocalTransport } from './testing.ts'
import { direct, drop } from './verdict.ts'

describe('what cannot be remembered is refused where it is said', () => {
  test.each([
    [() => direct({ remember: { ttl: 0 } }), /ttl is 0 \(give milliseconds, up to a day\)/],
    [() => direct({ remember: { ttl: Number.NaN } }), /ttl is NaN/],
    [() => drop({ remember: { ttl: 86_400_001 } }), /ttl is 86400001/],
    [
      () => direct({ remember: { ttl: 1, by: 'name' as never } }),
      /by is name \('destination' or 'address'\)/,
    ],
    [() => direct({ remember: { ttl: 1 }, transform: () => ({}) }), /remember with transform/],
  ])('%s', (make, message) => {
    expect(make).toThrow(
      expect.objectContaining({ code: 'E_OPTION', message: expect.stringMatching(message) }),
    )
  })
})

test('where there is no kernel to remember it, a verdict holds for its own connection', async () => {
  const transport = new LocalTransport()
  await using proxy = await TransparentProxy.open({
    transport,
    plugins: [() => drop({ remember: { ttl: 1000 } })],
  })
  const sessions: (Remembered | undefined)[] = []
  proxy.sessions.subscribe(({ remembered }) => sessions.push(remembered))
  const destination = { address: '203.0.113.1', port: 443 }
  for (let again = 0; again < 2; again++) {
    const program = await transport.connect({ destination })
    await new Promise((resolve) => program.once('error', () => {}).once('close', resolve))
  }
  expect(sessions).toEqual([undefined, undefined])
  expect(proxy.memories).toBeUndefined()
})

test.each([null, { ttl: 0 }])(
  'a verdict that was made by hand holds for its own connection when it says to remember %j',
  async (remember) => {
    const transport = new LocalTransport()
    await using proxy = await TransparentProxy.open({
      transport,
      plugins: [
        async (connection) => {
          await connection.peek({ deadlineMs: 1 })
          return { kind: 'drop', reset: true, remember: remember as Remember }
        },
      ],
    })
    const warnings: string[] = []
    proxy.warnings.subscribe((warning) => warnings.push(warning))
    const program = await transport.connect({ destination: { address: '203.0.113.1', port: 443 } })
    await new Promise((resolve) => program.once('error', () => {}).once('close', resolve))
    expect(warnings).toEqual([
      expect.stringMatching(
        /^remember the verdict for 203\.0\.113\.1:443: remember: ttl is (0|undefined) \(give/,
      ),
    ])
  },
)
