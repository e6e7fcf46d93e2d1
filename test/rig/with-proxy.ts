import { afterEach, beforeEach, expect } from 'vitest'
import type { Program } from './host.ts'
import type { ProxyProgramOptions, World } from './world.ts'

/** A proxy for each test of a block. Nothing it does may end in an error that nobody handles. */
export function withProxy(world: () => World, options: ProxyProgramOptions): () => Program {
  let proxy: Program
  beforeEach(async () => {
    proxy = await world().proxy({ interfaces: ['wan0'], ...options })
  })
  afterEach(async () => {
    expect(await proxy.stop()).toMatchObject({ code: 0 })
    expect(proxy.events.filter(({ event }) => event === 'uncaught')).toEqual([])
  })
  return () => proxy
}
