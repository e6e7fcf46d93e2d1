/** `0 B`, `1.2 kB`, `14 kB`, `3.4 GB`: powers of 1000, as links are rated. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const units = ['kB', 'MB', 'GB', 'TB', 'PB']
  let value = bytes / 1000
  while (value >= 999.5 && units.length > 1) {
    value /= 1000
    units.shift()
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[0]}`
}

/** `35 ms`, `1.2 s`, `2 m 05 s`, `1 h 02 m`. */
export function formatDuration(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`
  const seconds = Math.round(ms / 1000)
  const [whole, rest, units] =
    seconds < 3600
      ? [Math.floor(seconds / 60), seconds % 60, ['m', 's']]
      : [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60), ['h', 'm']]
  return `${whole} ${units[0]} ${String(rest).padStart(2, '0')} ${units[1]}`
}

/** `12:00:01`, local time. */
export function formatTime(date: Date): string {
  return [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((part) => String(part).padStart(2, '0'))
    .join(':')
}

const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** A timer of Node that is to wait for longer fires at once. */
const longestMs = 2 ** 31 - 1

/** What {@link parseDuration} reads. */
export const durationForm = 'seconds, or with a unit: 500ms, 30s, 5m, 2h'

/** In milliseconds; undefined for what is none. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text)
  const value = Math.round(Number(match?.[1]) * (units[match?.[2] ?? 's'] ?? Number.NaN))
  return match === null ? undefined : value
}

/** What is expected instead of a duration that is none, too short, or more than can be waited for; else undefined. */
export function misfitDuration(text: string, leastMs = 0): string | undefined {
  const ms = parseDuration(text)
  if (ms === undefined) return durationForm
  if (ms > longestMs) return 'at most 24 days'
  return ms < leastMs ? `at least ${formatDuration(leastMs)}` : undefined
}
