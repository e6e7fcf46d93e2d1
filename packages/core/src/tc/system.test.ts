import { afterEach, describe, expect, test, vi } from 'vitest'
import { withTools } from './system.ts'

afterEach(() => {
  vi.unstubAllEnvs()
})

describe('where tools of the system are looked for', () => {
  test.each([undefined, '', ':', '/opt/bin::/usr/bin:'])(
    'is never the working directory (PATH=%s)',
    (path) => {
      vi.stubEnv('PATH', path)
      const parts = (withTools()['PATH'] ?? '').split(':')
      expect(parts.filter((part) => !part.startsWith('/'))).toEqual([])
      expect(parts.slice(-4)).toEqual(['/usr/bin', '/bin', '/usr/sbin', '/sbin'])
    },
  )
})
