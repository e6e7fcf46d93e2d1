import { mkdirSync } from 'node:fs'
import { release, version } from 'node:os'
import { programsDigest } from '@tproxy/bpf'
import { isObject, isText, readJson, writeWhole } from '../records.ts'
import { root } from '../records-directory.ts'
import { trySplicing } from './trial.ts'

const path = `${root}/trial.json`

interface Outcome {
  readonly kernel: string
  readonly programs: string
  readonly problem?: string | undefined
}

function isOutcome(value: unknown): value is Outcome {
  if (!isObject(value)) return false
  const { kernel, programs, problem } = value
  return isText(kernel) && isText(programs) && (problem === undefined || isText(problem))
}

/**
 * What is not right when this kernel carries connections, from the trial of an earlier start if these are still its kernel and
 * its programs. Undefined when all is right, and when it cannot be tried.
 */
export async function knownProblem(): Promise<string | undefined> {
  const known = readJson(path, isOutcome)
  const { kernel, programs } = here()
  if (known?.kernel === kernel && known.programs === programs) return known.problem
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
