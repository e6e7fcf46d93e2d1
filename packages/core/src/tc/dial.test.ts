import { expect, test } from 'vitest'
import { addressBytes } from '../endpoint.ts'
import { Dialler } from './dial.ts'

const end = (address: string, port = 0) => ({ family: 4, address: addressBytes(address), port }) as const

test('what fails before it is connected names the destination, too', () => {
  using dialler = new Dialler()
  // A documentation address (RFC 5737), which is none of ours.
  const dial = () =>
    dialler.dial(end('192.0.2.1'), end('203.0.113.1', 443), undefined, new AbortController().signal)
  expect(dial).toThrow(
    expect.objectContaining({
      code: 'EADDRNOTAVAIL',
      message: 'connect EADDRNOTAVAIL 203.0.113.1:443',
      address: '203.0.113.1',
    }),
  )
})
