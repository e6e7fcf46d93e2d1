import { expect, it } from 'vitest'
import { serviceManager } from './service-manager.ts'

it('is there only where somebody asked to be told', () => {
  expect(serviceManager({})).toBeUndefined()
  expect(serviceManager({ NOTIFY_SOCKET: 'vsock:2:1234' })).toBeUndefined()
})

it('that does not listen is named', () => {
  expect(() => serviceManager({ NOTIFY_SOCKET: '/nonexistent' })).toThrow(
    'tell the service manager at /nonexistent: connect to /nonexistent: ENOENT',
  )
})
