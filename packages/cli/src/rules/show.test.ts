import { expect, it } from 'vitest'
import { rulesTable } from './show.ts'

it('has a line for each rule, and the default’s last', () => {
  const state = {
    rules: [
      { number: 1, packets: 12, bytes: 3400, rule: 'drop tcp' },
      { number: 2, packets: 0, bytes: 0, rule: 'drop tcp dport 25' },
    ],
    default: { action: 'proxy', packets: 7, bytes: 420 },
    shadowed: [{ rule: 2, by: 1 }],
  } as const
  expect(rulesTable(state, false)).toBe(`#  packets   bytes  rule
1       12  3.4 kB  drop tcp
2        0     0 B  drop tcp dport 25  (never matches: rule 1 covers it)
         7   420 B  default proxy`)
})
