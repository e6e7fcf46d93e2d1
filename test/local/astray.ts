import { afterEach, beforeEach, expect, vi } from 'vitest'

/** Makes each test of a file fail when it leaves a rejection or an exception to nobody. */
export function nothingGoesAstray(): void {
  const astray = vi.fn()
  beforeEach(() => {
    process.on('unhandledRejection', astray).on('uncaughtException', astray)
  })
  afterEach(() => {
    process.off('unhandledRejection', astray).off('uncaughtException', astray)
    expect(astray).not.toHaveBeenCalled()
  })
}
