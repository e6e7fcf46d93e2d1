import { setImmediate as nextTurn } from 'node:timers/promises'
import type { HeldSyn, OpeningEvent, OpeningListener } from '@tproxy/bpf'
import { expect, test } from 'vitest'
import { Openings } from './openings.ts'

const kernel = () => {
  const listeners: OpeningListener[] = []
  const listen = (listener: OpeningListener) => {
    listeners.push(listener)
    return { close: () => {} }
  }
  const [told, fake] = [() => listeners[0] as OpeningListener, { listen } as never]
  return { fake, told }
}

test('what is held, and decided at once, goes before news of those that nobody waits for', async () => {
  const { fake, told } = kernel()
  const order: string[] = []
  using openings = new Openings(fake, async () => {
    await Promise.resolve()
    order.push('decided')
  })
  openings.add({ id: 1, reached: () => order.push('reached'), ended: () => order.push('ended') })
  told().reached({ id: 1 } as OpeningEvent)
  told().ended({ id: 1 } as OpeningEvent)
  told().held({} as HeldSyn)
  await nextTurn()
  expect(order).toEqual(['decided', 'reached', 'ended'])
})

test('nothing is told once they are closed', async () => {
  const { fake, told } = kernel()
  const order: string[] = []
  const openings = new Openings(fake, () => {})
  openings.add({ id: 1, ended: () => order.push('ended') })
  told().ended({ id: 1 } as OpeningEvent)
  openings[Symbol.dispose]()
  await nextTurn()
  expect(order).toEqual([])
})
