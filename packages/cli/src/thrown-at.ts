import { placesOf, reason } from '@tproxy/core'

/** {@link reason}, and where it was thrown, or called from: the first place that is not in Node. */
export function reasonAndPlace(error: unknown): string {
  const [place] = placesOf(error)
  if (place === undefined) return reason(error)
  const { path, line, column } = place
  return `${reason(error)} (at ${path}:${line}${column === undefined ? '' : `:${column}`})`
}
