import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { pair } from './pair.ts'

const cut = () => new Error('cut')

function portions(stream: Duplex): number[] {
  const sizes: number[] = []
  stream.on('data', (chunk: Buffer) => sizes.push(chunk.length))
  return sizes
}

test('lets every byte through, in order, in portions', async () => {
  const { near, far, valve } = pair(cut)
  valve.portion = 1000
  const sizes = portions(far)
  const bytes = Buffer.from(Array.from({ length: 4500 }, (_, at) => at % 251))
  near.write(bytes.subarray(0, 1))
  near.write('')
  near.end(bytes.subarray(1))
  expect(Buffer.compare(await buffer(far), bytes)).toBe(0)
  expect(sizes).toEqual([1, 1000, 1000, 1000, 1000, 499])
})

test('once it is shut, holds back all but what was on its way, and the writer, until it is open', async () => {
  const { near, far, valve } = pair(cut)
  valve.portion = 100
  const sizes = portions(far)
  far.once('data', () => valve.shut())
  let written = 0
  for (let chunk = 0; chunk < 3; chunk++) near.write(Buffer.alloc(1000), () => written++)
  near.end()
  await wait(10)
  expect(sizes).toEqual([100, 100])
  expect(written).toBe(0)
  valve.open()
  valve.open()
  await once(far, 'end')
  expect(sizes).toEqual(Array(30).fill(100))
  expect(written).toBe(3)
})

test('lets no more than a portion through to an end that looks and does not read', async () => {
  const { near, far, valve } = pair(cut)
  valve.portion = 100
  const look = () => {}
  far.on('readable', look)
  near.write(Buffer.alloc(1000))
  await wait(5)
  expect(far.readableLength).toBe(100)
  far.off('readable', look)
  const sizes = portions(far)
  far.once('data', () => valve.shut())
  await wait(5)
  expect(sizes).toEqual([100, 100])
})

test('shut before anything was sent, holds back the first byte as well', async () => {
  const { near, far, valve } = pair(cut)
  const sizes = portions(far)
  await wait(1)
  valve.shut()
  near.write('a')
  await wait(5)
  expect(sizes).toEqual([])
  valve.open()
  await wait(5)
  expect(sizes).toEqual([1])
})

test.each(['near', 'far'] as const)(
  'a %s end that breaks does so while it is shut, and for good',
  async (broken) => {
    const ends = pair(cut)
    const sizes = portions(ends.far)
    await wait(1)
    ends.valve.shut()
    ends.near.write('a')
    ends[broken].destroy()
    await wait(1)
    expect([ends.near.closed, ends.far.closed]).toEqual([true, true])
    ends.valve.open()
    expect(sizes).toEqual([])
  },
)
