import { Fastpath } from '@tproxy/bpf'
import type { FastpathMode } from '../options.ts'
import { cgroupRoot } from './cgroup.ts'
import { rehearse } from './rehearsal.ts'

export interface FastpathOptions {
  readonly mode: Exclude<FastpathMode, 'off'>
  /** Absolute path of the cgroup whose programs are intercepted; without it, all that this process can see. */
  readonly cgroup: string | undefined
  /** See {@link Fastpath.load}. */
  readonly sockets: number
}

/** Loads, tries out and attaches. Throws the reason why this kernel does not take it, or not do it right. */
export async function openFastpath({ mode, cgroup, sockets }: FastpathOptions): Promise<Fastpath> {
  await tryFastpath(mode)
  using undo = new DisposableStack()
  const fastpath = undo.use(Fastpath.load(sockets))
  fastpath.redirect(mode === 'both')
  fastpath.watch(cgroup ?? cgroupRoot())
  undo.move()
  return fastpath
}

/** Whether this kernel takes it, and does it right; attaches to no cgroup. Throws the reason. */
export async function tryFastpath(mode: Exclude<FastpathMode, 'off'>): Promise<void> {
  using fastpath = Fastpath.load()
  fastpath.redirect(mode === 'both')
  await rehearse(fastpath, mode)
}
