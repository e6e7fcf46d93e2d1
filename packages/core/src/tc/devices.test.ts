import type { Steering } from '@tproxy/bpf'
import { expect, test } from 'vitest'
import { Devices } from './devices.ts'

test('an interface that was refused is attached by the next update, under its slot', () => {
  const calls: string[] = []
  let refused = true
  const steering: Pick<Steering, 'setDevice' | 'attachDevice' | 'detachDevice' | 'egress'> = {
    egress: 0,
    setDevice: (slot, { ifindex }) => void calls.push(`set ${slot} ${ifindex}`),
    attachDevice: (name, ifindex) => {
      if (refused) throw new Error(`attach wan_egress to ${name}: ENOMEM`)
      calls.push(`attach ${ifindex}`)
    },
    detachDevice: (ifindex) => void calls.push(`detach ${ifindex}`),
  }
  const listened: number[] = []
  const devices = new Devices(
    steering as Steering,
    undefined,
    ({ slot }, family) => {
      listened.push(family)
      expect(slot).toBe(0)
      return { [Symbol.dispose]: () => {} }
    },
    false,
  )
  const wan0 = { name: 'wan0', ifindex: 7, mac: Buffer.alloc(6), hasMac: true }
  expect(() => devices.update([wan0])).toThrow('ENOMEM')
  expect(devices.ifindexOf('wan0')).not.toBe(7)
  refused = false
  expect(devices.update([wan0])).toBe(true)
  expect(devices.update([wan0])).toBe(false)
  expect(calls).toEqual(['set 0 7', 'detach 7', 'detach 0', 'set 0 7', 'attach 7'])
  expect(devices.ifindexOf('wan0')).toBe(7)
  expect(new Set(listened).size).toBe(listened.length)
})
