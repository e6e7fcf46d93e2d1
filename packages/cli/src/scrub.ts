/**
 * Removes user and password of URLs from a text that is about to be shown. Our own messages have none; this is for what
 * plugins and libraries say.
 */
export function scrub(text: string): string {
  // A peer can make texts long: what matches in vain is consumed, so that no expression tries the same characters again.
  const [before = '', ...urls] = text.split(/(?<=[a-z0-9+.-]:\/\/)/i)
  return [before, ...urls.map(withoutUser)]
    .join('')
    .replaceAll(/(?<![^\s"'=(,])[^\s"'@/=(,:]*:[^\s"'@/]*(@(?=[\w[.]))?/g, (all, at) => (at ? '' : all))
}

/** What follows `scheme://`, up to the next. */
function withoutUser(rest: string): string {
  const [authority = ''] = /^[^\s/?#]*/.exec(rest) ?? []
  if (authority.includes('@')) return rest.slice(authority.lastIndexOf('@') + 1)
  // A colon begins a port, or ends what is said of the host; else a password that needed escapes, for a slash or a space in it.
  const [host = ''] = /^(\[[^\]\s]*\]|[^\s/?#:]*)(:\d+)?/.exec(rest) ?? []
  const isHost = /^([/?#]|[^\w\s/?#@]*(\s|$))/.test(rest.slice(host.length))
  return isHost ? rest : rest.slice(rest.lastIndexOf('@') + 1)
}

/** Control characters could move the cursor or worse: program names and upstreams' answers are not ours. */
export function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?')
}

/** Fit to be shown: without secrets, on one line. */
export function clean(text: string): string {
  return printable(scrub(text))
}
