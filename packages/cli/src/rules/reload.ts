import { askOnce } from '../control/client.ts'
import type { Reloaded } from '../control/protocol.ts'
import type { Ending } from '../ending.ts'
import { reloadedLine } from '../lines.ts'

/** `tproxy-run reload [--reset]`. */
export async function reload(options: { reset: boolean; pid?: number; json: boolean }): Promise<Ending> {
  const reloaded = await askOnce<Reloaded>({ request: 'reload', reset: options.reset }, options.pid)
  const line = () => reloadedLine(reloaded, (_style, text) => text)
  console.log(options.json ? JSON.stringify({ event: 'reloaded', ...reloaded }) : line())
  return { code: 0 }
}
