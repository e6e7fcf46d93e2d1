import { once } from 'node:events'
import { chmodSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { reason, TproxyError, type TransparentProxy } from '@tproxy/core'
import { isSocket, type MetricsAddress } from './address.ts'

/** Answers `GET /metrics` at one address until disposed of. Throws `E_SYSTEM` when it cannot listen there. */
export async function serveMetrics(
  proxy: TransparentProxy,
  address: MetricsAddress,
): Promise<AsyncDisposable> {
  // Only now: these take a while to load.
  const [{ createServer }, { makeMetrics }] = await Promise.all([import('node:http'), import('./metrics.ts')])
  const metrics = makeMetrics(proxy)
  const server = createServer(({ method, url }, response) => {
    // Scrapers may be told to send parameters.
    if (method !== 'GET' || url?.replace(/\?.*/, '') !== '/metrics') {
      response.writeHead(404).end()
      return
    }
    metrics.metrics().then(
      (text) => response.writeHead(200, { 'content-type': metrics.contentType }).end(text),
      (error) => response.writeHead(500).end(`${reason(error)}\n`),
    )
  })
  try {
    if ('path' in address) await removeAbandoned(address.path)
    server.listen(address)
    await once(server, 'listening')
    if ('path' in address) chmodSync(address.path, 0o600)
  } catch (cause) {
    const where = 'path' in address ? `unix:${address.path}` : `${address.host}:${address.port}`
    throw new TproxyError('E_SYSTEM', `serve metrics at ${where}: ${reason(cause)}`, {
      hint: 'choose another address for --metrics',
      cause,
    })
  }
  return {
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

/**
 * The socket of a process that was killed stands in the way; one where somebody listens is not ours to take, nor is a file,
 * where connect(2) is refused too. Throws for a file.
 */
async function removeAbandoned(path: string): Promise<void> {
  if (!isSocket(path)) return
  const probe = connect(path)
  try {
    await once(probe, 'connect')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ECONNREFUSED') rmSync(path)
  } finally {
    probe.destroy()
  }
}
