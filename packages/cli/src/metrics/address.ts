import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { accessSync, lstatSync } from 'node:fs'
import { isIP } from 'node:net'
import { dirname } from 'node:path'

/** Where metrics are served. */
export type MetricsAddress = { readonly host: string; readonly port: number } | { readonly path: string }

/** What {@link parseMetricsAddress} reads. */
export const metricsForm = 'HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464, or unix:PATH'

/** undefined for what is none. */
export function parseMetricsAddress(text: string): MetricsAddress | undefined {
  const path = /^unix:(\/.+)$/.exec(text)?.[1]
  if (path !== undefined) return { path }
  const [, six, name, port] = /^(?:\[([0-9a-f:.]+)\]|([^\s:[\]/]+)):(\d{1,5})$/i.exec(text) ?? []
  const host = six ?? name
  return host === undefined || Number(port) < 1 || Number(port) > 65_535
    ? undefined
    : { host, port: Number(port) }
}

/** Whether a socket stands at a path; false where nothing does. Throws for a file, which is not ours to replace. */
export function isSocket(path: string): boolean {
  const standing = lstatSync(path, { throwIfNoEntry: false })
  if (standing?.isSocket() === false) throw new Error('what is there is no socket')
  return standing !== undefined
}

/**
 * Throws where it could not be served, as far as that can be told beside somebody who serves there now: with a socket of
 * another kind, that nobody sees.
 */
export async function tryMetricsAddress(address: MetricsAddress): Promise<void> {
  if ('path' in address) {
    if (!isSocket(address.path)) accessSync(dirname(address.path))
    return
  }
  const family = isIP(address.host)
  if (family === 0) return
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6').bind(0, address.host)
  try {
    await once(socket, 'listening')
  } finally {
    socket.close()
  }
}
