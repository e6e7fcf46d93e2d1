import { METHODS } from 'node:http'

// What node's parser takes (llhttp, strict) and no more of RFC 9112, 3: a request line that it refuses would cost the
// connection, which a tunnel carries. CONNECT is for a tunnel anyway.
const methods = METHODS.filter((method) => method !== 'CONNECT')
const host = "[\\w.!~*'();:&=+$,%[\\]-]*"
const target = `(?:[/*][!-~]*|[A-Za-z]+://(?:${host}@)?${host}(?:[/?][!-~]*)?)`
const emptyLines = '^(?:\\r?\\n)*'
const requestLine = new RegExp(`${emptyLines}(?:${methods.join('|')}) ${target} HTTP/1\\.[01]\\r\\n`)

const version = begun(' HTTP/1.', '(?:[01]\\r?)?')
// A target is looked at closely once the line is there.
const afterMethod = `(?:[/*A-Za-z][!-~]*${version})?`
const beginnings = ['\\r', ...methods.map((method) => begun(method, `(?: ${afterMethod})?`))]
const beginning = new RegExp(`${emptyLines}(?:${beginnings.join('|')})$`)
const longestLine = 16_384

/** Whether bytes begin an HTTP/1.x request that node's parser takes, do not, or may still do so. */
export function looksLikeHttp(bytes: Buffer): boolean | undefined {
  const text = bytes.toString('latin1')
  if (requestLine.test(text)) return true
  return text.length < longestLine && beginning.test(text) ? undefined : false
}

/** An expression for all beginnings of a word, and for what may follow the whole of it. */
function begun(word: string, after: string): string {
  return Array.from(word).reduceRight((rest, letter) => `(?:${letter.replace('.', '\\.')}${rest})?`, after)
}
