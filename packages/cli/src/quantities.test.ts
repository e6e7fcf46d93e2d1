import { expect, it } from 'vitest'
import { formatBytes, formatDuration } from './quantities.ts'

it('writes sizes with two digits at least, in powers of 1000', () => {
  expect([0, 999, 1000, 1234, 9949, 9950, 14_200, 999_499, 999_500, 3_400_000_000].map(formatBytes)).toEqual([
    '0 B',
    '999 B',
    '1.0 kB',
    '1.2 kB',
    '9.9 kB',
    '10 kB',
    '14 kB',
    '999 kB',
    '1.0 MB',
    '3.4 GB',
  ])
})

it('writes durations in the units people use', () => {
  expect([0.4, 35, 1234, 59_949, 59_960, 125_000, 3_720_000].map(formatDuration)).toEqual([
    '0 ms',
    '35 ms',
    '1.2 s',
    '59.9 s',
    '1 m 00 s',
    '2 m 05 s',
    '1 h 02 m',
  ])
})
