import type { Splicing, Steering } from '@tproxy/bpf'
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
      return { adapt: () => {}, [Symbol.dispose]: () => {} }
    },
    false,
  )
  const wan0 = { name: 'wan0', ifindex: 7, mac: Buffer.alloc(6), hasMac: true, mtu: 1500 }
  expect(devices.update([wan0])).toMatchObject({
    attached: false,
    refused: [{ message: expect.stringContaining('ENOMEM') }],
  })
  expect(devices.ifindexOf('wan0')).not.toBe(7)
  refused = false
  expect(devices.update([wan0])).toEqual({ attached: true, refused: [] })
  expect(devices.update([wan0])).toEqual({ attached: false, refused: [] })
  expect(calls).toEqual(['set 0 7', 'detach 7', 'detach 0', 'set 0 7', 'attach 7'])
  expect(devices.ifindexOf('wan0')).toBe(7)
  expect(new Set(listened).size).toBe(listened.length)
})

test('one that is refused keeps no other from being attached, and where only the splice is, it is intercepted', () => {
  const attached: string[] = []
  const steering: Pick<Steering, 'setDevice' | 'attachDevice' | 'detachDevice' | 'egress'> = {
    egress: 0,
    setDevice: () => {},
    attachDevice: (name) => {
      if (name === 'wan0') throw new Error('no room')
      attached.push(`steering ${name}`)
    },
    detachDevice: (ifindex) => void attached.push(`not steering ${ifindex}`),
  }
  const splicing: Pick<Splicing, 'attach' | 'detach' | 'egress'> = {
    egress: () => 0,
    attach: (name) => {
      if (name === 'wan1') throw new Error('no memory')
      attached.push(`splice ${name}`)
    },
    detach: (ifindex) => void attached.push(`no splice ${ifindex}`),
  }
  const listen = () => ({ adapt: () => {}, [Symbol.dispose]: () => {} })
  const devices = new Devices(steering as Steering, splicing as Splicing, listen, false)
  const present = ['wan0', 'wan1', 'wan2'].map((name, index) => ({
    name,
    ifindex: index + 7,
    mac: Buffer.alloc(6),
    mtu: 1500,
    hasMac: true,
  }))
  const { refused } = devices.update(present)
  expect(refused.map(String)).toEqual(['Error: no room', 'Error: no memory'])
  expect(attached).toEqual(['not steering 7', 'steering wan1', 'no splice 8', 'steering wan2', 'splice wan2'])
})

test('one whose name another has taken stays attached beside that, under its new one', () => {
  const calls: string[] = []
  const steering: Pick<Steering, 'setDevice' | 'attachDevice' | 'detachDevice' | 'egress'> = {
    egress: 0,
    setDevice: () => {},
    attachDevice: (name, ifindex) => void calls.push(`attach ${name} ${ifindex}`),
    detachDevice: (ifindex) => void calls.push(`detach ${ifindex}`),
  }
  const listen = () => ({ adapt: () => {}, [Symbol.dispose]: () => {} })
  const devices = new Devices(steering as Steering, undefined, listen, false)
  const wan0 = { name: 'wan0', ifindex: 7, mac: Buffer.alloc(6), hasMac: true, mtu: 1500 }
  devices.update([wan0])
  devices.rename(new Map([[7, 'old0']]))
  devices.update([{ ...wan0, ifindex: 9 }])
  expect(calls).toEqual(['attach wan0 7', 'attach wan0 9'])
  expect(devices.interfaces.map(({ name, ifindex }) => [name, ifindex])).toEqual([
    ['old0', 7],
    ['wan0', 9],
  ])
})
