import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll } from 'vitest'

/** A directory of the test file's own, which goes with it. */
export function useDirectory(): string {
  const directory = mkdtempSync(`${tmpdir()}/rig-`)
  afterAll(() => rmSync(directory, { recursive: true }))
  return directory
}
