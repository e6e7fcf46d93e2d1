/** Whether a Transfer-Encoding ends the body by chunks (RFC 9112, 6.1): only such a message can have trailers (7.1.2). */
export function isChunked(transferEncoding: string | readonly string[] | undefined): boolean {
  return /(?:^|,)\s*chunked\s*$/i.test(String(transferEncoding ?? ''))
}
