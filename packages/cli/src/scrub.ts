/**
 * Removes user and password of URLs from a text that is about to be shown. Our own messages have none; this is for what
 * plugins and libraries say.
 */
export function scrub(text: string): string {
  // A peer can make texts long: what matches in vain is consumed, so that no expression tries the same characters again.
  return text
    .replaceAll(/(?<=[a-z0-9+.-]:\/\/)[^\s/?#]*@/gi, '')
    .replaceAll(/(?<![^\s"'=(,])[^\s"'@/=(,:]*:[^\s"'@/]*(@(?=[\w[.]))?/g, (all, at) => (at ? '' : all))
}

/** Control characters could move the cursor or worse: program names and upstreams' answers are not ours. */
export function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?')
}

/** Fit to be shown: without secrets, on one line. */
export function clean(text: string): string {
  return printable(scrub(text))
}
