export interface Estimate {
  readonly median: number
  readonly low: number
  readonly high: number
}

const ascending = (values: readonly number[]) => values.toSorted((a, b) => a - b)

/** How probable it is that a fair coin, tossed so many times, shows heads `most` times or fewer. */
function tail(tosses: number, most: number): number {
  let [sum, ways] = [0, 1]
  for (let heads = 0; heads <= most; heads++) {
    sum += ways
    ways = (ways * (tosses - heads)) / (heads + 1)
  }
  return sum / 2 ** tosses
}

/** Which order statistics bound the median with 95 %, or as near as so few values come. */
function bounds(count: number): number {
  let rank = 0
  while (2 * tail(count, rank + 1) <= 0.05) rank++
  return rank
}

/** With what probability the bounds of so many values hold the median: 0.979 of 10. */
export const coverage = (count: number): number => 1 - 2 * tail(count, bounds(count))

/** The median, and bounds that assume nothing of the distribution: each value is above the true median as a coin shows heads. */
export function estimate(values: readonly number[]): Estimate {
  const sorted = ascending(values)
  const [middle, rank] = [sorted.length / 2, bounds(sorted.length)]
  const at = (index: number) => sorted[index] ?? Number.NaN
  return {
    median: (at(Math.floor(middle - 0.5)) + at(Math.ceil(middle - 0.5))) / 2,
    low: at(rank),
    high: at(sorted.length - 1 - rank),
  }
}
