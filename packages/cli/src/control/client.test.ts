import { expect, it } from 'vitest'
import { insteadOfRunning } from './client.ts'

it('where none runs, root is not told to become root, and who asks about a packet that files will do', () => {
  expect(insteadOfRunning({ request: 'status' }, 1000)).toBe('or it is not yours: try sudo')
  expect(insteadOfRunning({ request: 'status' }, 0)).toBe('')
  expect(insteadOfRunning({ request: 'explain' }, 0)).toBe('or give --rule, --rules or --config')
  expect(insteadOfRunning({ request: 'explain' }, 1000)).toBe(
    'or it is not yours: try sudo, or give --rule, --rules or --config',
  )
})
