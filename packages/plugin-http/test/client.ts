import { once } from 'node:events'
import { type ClientRequest, type IncomingMessage, type RequestOptions, request } from 'node:http'
import type { Duplex } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { endpoint } from '@tproxy/core'
import type { LocalServer } from '../../../test/local/server.ts'
import { type HttpUpstreamOptions, httpUpstream } from '../src/upstream.ts'

const destination = endpoint('93.184.216.34', 80)
const never = new AbortController().signal

/** The client's end of a connection to port 80 through a proxy. */
export function open(
  { port }: LocalServer,
  options: HttpUpstreamOptions = {},
  scheme = 'http://',
): Promise<Duplex> {
  const upstream = httpUpstream(`${scheme}127.0.0.1:${port}`, { timeoutMs: 1000, ...options })
  return upstream.connect(destination, never)
}

/** A request as a program would make it on the connection. */
export function ask(connection: Duplex, options: RequestOptions = {}): ClientRequest {
  const headers = { Host: 'example.com', Connection: 'close', ...(options.headers as object) }
  return request({ ...options, headers, createConnection: () => connection })
}

export async function answer(toServer: ClientRequest): Promise<{ response: IncomingMessage; body: Buffer }> {
  const [response] = (await once(toServer, 'response')) as [IncomingMessage]
  return { response, body: await buffer(response) }
}

/** Writes a text, ends, and returns all that comes back. */
export async function exchange(connection: Duplex, text: string | Buffer): Promise<string> {
  connection.end(text)
  return (await buffer(connection)).toString('latin1')
}

/** Resolves with the error that a connection ends with; fails when it ends in order. */
export function end(connection: Duplex): Promise<Error> {
  return new Promise((resolve, reject) => {
    connection.once('end', () => reject(new Error('it ended in order')))
    connection.once('close', () => resolve(connection.errored ?? new Error('it closed without an error')))
    connection.resume()
  })
}

/** Reads until the text that has arrived matches. */
export function until(connection: Duplex, pattern: RegExp): Promise<void> {
  return new Promise((resolve) => {
    let text = ''
    const look = (chunk: Buffer): void => {
      text += String(chunk)
      if (!pattern.test(text)) return
      connection.off('data', look)
      resolve()
    }
    connection.on('data', look)
  })
}
