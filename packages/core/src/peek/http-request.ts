import type { Guess } from './guess.ts'
import { hostName } from './host-name.ts'

// RFC 9112, 3: method SP request-target SP HTTP-version.
const method = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}"
const requestLine = new RegExp(`^${method} (\\S+) HTTP/1\\.[01]\\r?$`)
const beginning = new RegExp(`^(${method}( (\\S+( [HTP/1.0]{0,8}\\r?)?)?)?)?$`)

/** Reads the head of an HTTP/1 request and the host that it is for. undefined when the bytes are not the beginning of one. */
export function readHttpRequest(bytes: Buffer): Guess | undefined {
  const text = bytes.toString('latin1')
  const line = text.indexOf('\n')
  if (line < 0) return beginning.test(text) ? { protocol: undefined, more: true } : undefined
  const target = requestLine.exec(text.slice(0, line))?.[1]
  if (target === undefined) return undefined
  const end = /\r?\n\r?\n/.exec(text)?.index
  if (end === undefined) return { protocol: 'http', more: true }
  return { protocol: 'http', name: hostOf(target, text.slice(line + 1, end)), more: false }
}

/** A program that names a host in the target talks to a proxy; that is where it wants to go, under a name not told here. */
function hostOf(target: string, fields: string): string | undefined {
  if (target !== '*' && !target.startsWith('/')) return undefined
  // Spaces are trimmed afterwards: an expression that leaves them out tries every run of them to its end.
  const hosts = [...fields.matchAll(/^host:(.*)$/gim)]
  const [, name] = /^([^:]*)(?::\d*)?$/.exec(hosts.length === 1 ? (hosts[0]?.[1] ?? '').trim() : '') ?? []
  return hostName(name ?? '')
}
