import { mkdirSync, readFileSync } from 'node:fs'
import { release, version } from 'node:os'
import { programsDigest } from '@tproxy/bpf'
import { z } from 'zod'
import { writeWhole } from '../records.ts'
import { root } from '../records-directory.ts'
import { trySplicing } from './trial.ts'

const path = `${root}/trial.json`

const Outcome = z.object({ kernel: z.string(), programs: z.string(), problem: z.string().optional() })

/**
 * What is not right when this kernel carries connections, from the trial of an earlier start if these are still its kernel and
 * its programs. Undefined when all is right, and when it cannot be tried.
 */
export async function knownProblem(): Promise<string | undefined> {
  const known = readOutcome()
  if (known !== undefined && JSON.stringify({ ...known, problem: undefined }) === JSON.stringify(here()))
    return known.problem
  return tryAndRecord().catch(() => undefined)
}

/** Tries now. Rejects when it cannot be tried. */
export async function tryAndRecord(): Promise<string | undefined> {
  const problem = await trySplicing()
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 })
    writeWhole(path, { ...here(), problem })
  } catch {
    // The next start tries again.
  }
  return problem
}

const here = () => ({ kernel: `${release()} ${version()}`, programs: programsDigest() })

function readOutcome(): z.infer<typeof Outcome> | undefined {
  try {
    return Outcome.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    return undefined
  }
}
