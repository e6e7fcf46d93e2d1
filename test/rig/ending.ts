import { expect } from 'vitest'
import type { Program } from './host.ts'

/** Ends a proxy, which has had nothing to warn of. */
export async function expectEnd(proxy: Program): Promise<void> {
  expect(await proxy.stop()).toMatchObject({ code: 0, stderr: '' })
  expect(proxy.events.filter(({ event }) => event === 'uncaught' || event === 'warning')).toEqual([])
}
