import { Connection } from '../connection.ts'
import { endpoint } from '../endpoint.ts'
import { TproxyError } from '../errors.ts'
import { ask, type Plugin } from '../plugin.ts'
import { drop, type Verdict } from '../verdict.ts'
import { type Claim, claimed } from './claim.ts'
import { socketPair } from './socket-pair.ts'

/**
 * What a plugin decides about a connection, asked as a proxy asks; undefined when it leaves that to the next. `says` is what
 * the program sends first, for a plugin that peeks. Rejects with `E_PLUGIN` when it throws or returns no verdict,
 * and with `E_TIMEOUT` after ten seconds.
 */
export async function verdictOf(
  plugin: Plugin,
  { says, ...claim }: Claim & { readonly says?: string | Uint8Array },
): Promise<Verdict | undefined> {
  const [program, socket] = await socketPair()
  for (const end of [program, socket]) end.on('error', () => {})
  if (says !== undefined) program.write(says)
  const source = endpoint('127.0.0.1', program.localPort ?? 0)
  const direct = () => Promise.reject(new Error('nobody carries a verdict out here'))
  const connection = new Connection(1, { ...claimed(claim), socket, source, direct }, () => {
    throw new TproxyError('E_STATE', 'settle a connection of verdictOf', {
      hint: 'a plugin returns its verdict; for one that settles, open a TransparentProxy on a LocalTransport',
    })
  })
  try {
    const { verdict, plugin: by } = await ask([plugin], connection, { fallback: drop(), timeoutMs: 10_000 })
    return by === undefined ? undefined : verdict
  } finally {
    connection.reset()
    program.destroy()
  }
}
