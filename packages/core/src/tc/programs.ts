import { statSync } from 'node:fs'
import { LoadError, NativeError, type Settings, Splicing, Steering } from '@tproxy/bpf'
import { reason, TproxyError } from '../errors.ts'

/** The kernel gives lo of every network namespace this index (LOOPBACK_IFINDEX, include/net/flow.h). */
export const lo = 1

/** Loads the splice programs; nothing is attached yet. With a directory, what is pinned there is taken over. */
export function loadSplicing({
  mark = 0,
  directory,
  steering,
}: {
  mark?: number
  directory?: string | undefined
  steering?: Steering
}): Splicing {
  try {
    return Splicing.load(settingsOf(mark, false), directory, steering?.shared)
  } catch (cause) {
    throw explain(cause)
  }
}

const settingsOf = (mark: number, scoped: boolean): Settings => ({
  mark,
  loIfindex: lo,
  netns: statSync('/proc/self/ns/net').ino,
  pidns: statSync('/proc/self/ns/pid').ino,
  scoped: scoped ? 1 : 0,
  since: process.hrtime.bigint(),
})

/** Loads the steering programs; nothing is attached yet. */
export function loadSteering(mark: number, scoped: boolean): Steering {
  try {
    return Steering.load(settingsOf(mark, scoped))
  } catch (cause) {
    throw explain(cause)
  }
}

/** What the kernel's refusal means, and what to do. */
export function explain(cause: unknown): TproxyError {
  if (cause instanceof TproxyError) return cause
  const text = reason(cause)
  const errno = cause instanceof LoadError || cause instanceof NativeError ? cause.errno : undefined
  if (errno === 0) return new TproxyError('E_LIBRARY', text, { cause })
  if (errno === 1 || errno === 13)
    return new TproxyError('E_PRIVILEGE', text, {
      hint: 'needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: run as root',
      cause,
    })
  return new TproxyError('E_KERNEL', text, { hint: 'needs Linux 6.6 with BTF: see tproxy-run doctor', cause })
}
