/**
 * Removes user and password of URLs from a text that is about to be shown. Our own messages have none; this is for what
 * plugins and libraries say.
 */
export function scrub(text: string): string {
  return text
    .replaceAll(/([a-z][a-z0-9+.-]*:\/\/)[^\s/?#]*@/gi, '$1')
    .replaceAll(/(?<![^\s"'=(,])[^\s"'@/=(,]+:[^\s"'@/]*@(?=[\w[.])/g, '')
}

/** Control characters could move the cursor or worse: program names and upstreams' answers are not ours. */
export function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?')
}

/** Fit to be shown: without secrets, on one line. */
export function clean(text: string): string {
  return printable(scrub(text))
}
