/** The candidate that differs least from what was typed, if by no more than two letters. */
export function nearest(typed: string, candidates: readonly string[]): string | undefined {
  const close = candidates
    .map((candidate) => ({ candidate, distance: distance(typed, candidate) }))
    .filter((entry) => entry.distance <= Math.min(2, Math.floor(entry.candidate.length / 2)))
  return close.toSorted((a, b) => a.distance - b.distance)[0]?.candidate
}

/** How many letters to insert, delete or replace (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1]
    for (let j = 1; j <= b.length; j++)
      next.push(
        Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i] === b[j - 1] ? 0 : 1)),
      )
    row = next
  }
  return row[b.length] ?? 0
}
