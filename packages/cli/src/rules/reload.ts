import { askOnce } from '../control/client.ts'
import type { Reloaded } from '../control/protocol.ts'
import type { Ending } from '../ending.ts'
import { jsonLine } from '../json-line.ts'
import { reloadedLine, unstyled } from '../lines.ts'

/** `tproxy-run reload [--reset]`. */
export async function reload(options: { reset: boolean; pid?: number; json: boolean }): Promise<Ending> {
  const reloaded = await askOnce<Reloaded>({ request: 'reload', reset: options.reset }, options.pid)
  console.log(options.json ? jsonLine({ event: 'reloaded', ...reloaded }) : reloadedLine(reloaded, unstyled))
  return { code: 0 }
}
