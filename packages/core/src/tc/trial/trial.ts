import { execFile } from 'node:child_process'
import { extname } from 'node:path'
import { promisify } from 'node:util'
import { reason } from '../../errors.ts'

/** It takes about half a second. */
const deadlineMs = 10_000

/**
 * Tries on this kernel what carries connections: intercepts connections of a program in a network namespace of their own, over
 * IPv4 and IPv6, with an upstream on loopback, and compares bytes, counts and ends. Resolves with what is not right,
 * undefined when all is. Rejects when it cannot be tried, such as without CAP_SYS_ADMIN.
 */
export async function trySplicing(): Promise<string | undefined> {
  const program = new URL(`program${extname(import.meta.filename)}`, import.meta.url).pathname
  // What else this process was started with is its own affair: a debugger's port, a script given by -e.
  const conditions = process.execArgv.filter((option) => option.startsWith('--conditions='))
  const { NODE_OPTIONS: _, ...env } = process.env
  const node = [...conditions, program, String(deadlineMs)]
  const { stdout } = await promisify(execFile)('unshare', ['--net', process.execPath, ...node], {
    timeout: deadlineMs + 1000,
    env,
  }).catch((error) => {
    throw new Error(
      `try it in a network namespace: ${/^(?:\w*Error|unshare): (.*)$/m.exec(error.stderr)?.[1] ?? reason(error)}`,
    )
  })
  return stdout.trim() || undefined
}
