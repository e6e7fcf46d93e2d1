import { type ClientRequest, type RequestOptions, request } from 'node:http'
import type { Socket } from 'node:net'
import { type Destination, formatDestination } from '@tproxy/core'
import { printable } from './answer-head.ts'
import { credentialsHint, dial, failure, type Way } from './dial.ts'

/**
 * Opens a tunnel with CONNECT (RFC 9110, 9.3.6) within the deadline and resolves with its socket, bytes that came with
 * the reply unread in it. Rejects with `E_UPSTREAM`; the socket is closed by then.
 */
export async function tunnel(way: Way, destination: Destination, signal: AbortSignal): Promise<Socket> {
  const { proxy, timeoutMs } = way
  const authority = formatDestination(destination)
  let step = `connect to ${proxy.name}`
  if (signal.aborted) throw failure(step, new Error('aborted'))

  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  const socket = dial(way, { allowHalfOpen: true })
  socket.once(proxy.secure ? 'secureConnect' : 'connect', () => {
    step = `CONNECT ${authority} through ${proxy.name}`
  })
  const asked: RequestOptions = {
    method: 'CONNECT',
    path: authority,
    headers: {
      Host: authority,
      ...(proxy.authorization === undefined ? {} : { 'Proxy-Authorization': proxy.authorization }),
    },
    // Ours are complete: node would add `Connection: close`.
    setDefaultHeaders: false,
    createConnection: () => socket,
  }
  const fail = (cause: Error, hint?: string): void => {
    settle()
    reject(failure(step, cause, hint))
    socket.destroy()
    ask.destroy()
  }
  const late = setTimeout(() => fail(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs)
  const aborted = (): void => fail(new Error('aborted'))
  const settle = (): void => {
    clearTimeout(late)
    signal.removeEventListener('abort', aborted)
  }
  signal.addEventListener('abort', aborted)
  // A refusal arrives as 'connect', too: to node every answer to CONNECT ends the HTTP part of the connection.
  const hear = (): ClientRequest =>
    request(asked)
      .on('error', (cause) => fail(cause))
      .on('connect', ({ statusCode = 0, statusMessage }, _, head) => {
        if (head.length > 0) socket.unshift(head)
        if (statusCode >= 200 && statusCode <= 299) {
          settle()
          resolve(socket)
        } else if (statusCode < 200 && statusCode !== 101) {
          // Others follow an interim answer (RFC 9110, 15.2). A request that is never ended is not sent, and hears the next.
          ask = hear()
        } else {
          const hint = credentialsHint(statusCode, proxy)
          fail(new Error(`the proxy answered ${statusCode} ${printable(statusMessage)}`.trimEnd()), hint)
        }
      })
  let ask = hear()
  ask.end()
  return promise
}
