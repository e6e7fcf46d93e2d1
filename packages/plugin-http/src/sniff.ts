import type { Duplex } from 'node:stream'
import { looksLikeHttp } from './request-line.ts'

/** How long a client may stay silent before it is taken for one that waits for the server to speak first. */
export interface Patience {
  /** Milliseconds for the first byte. */
  readonly silenceMs: number
  /** Milliseconds for the whole request line. */
  readonly lineMs: number
}

/**
 * Looks at the first bytes that `client` has sent into its end of a pair and resolves whether they begin an HTTP/1.x
 * request. All bytes stay readable at the other end, `stream`. Resolves `false` when the patience is exhausted or the
 * client ends before; never rejects.
 */
export function sniff(stream: Duplex, client: Duplex, { silenceMs, lineMs }: Patience): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  let seen = Buffer.alloc(0)
  const decide = (http: boolean): void => {
    clearTimeout(timer)
    stream.off('readable', look).off('close', giveUp)
    if (seen.length > 0 && !stream.destroyed) stream.unshift(seen)
    seen = Buffer.alloc(0)
    resolve(http)
  }
  const giveUp = (): void => decide(false)
  let timer = setTimeout(giveUp, silenceMs)
  const look = (): void => {
    // 'readable' without anything to read announces the end.
    if (stream.readableLength === 0) return giveUp()
    // Exactly what is there: asking for more would end the stream, and an ended stream takes nothing back.
    while (stream.readableLength > 0) {
      if (seen.length === 0) {
        clearTimeout(timer)
        timer = setTimeout(giveUp, lineMs)
      }
      seen = Buffer.concat([seen, stream.read(stream.readableLength) as Buffer])
      const http = looksLikeHttp(seen)
      if (http !== undefined) return decide(http)
    }
    // An end that came together with the last bytes is not announced again.
    if (client.writableEnded && client.writableLength === 0) giveUp()
  }
  stream.on('readable', look).on('close', giveUp)
  return promise
}
