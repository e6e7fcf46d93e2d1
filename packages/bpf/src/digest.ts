import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

/** Tells the programs that steer and splice from those of other versions. */
export function programsDigest(): string {
  const hash = createHash('sha256')
  for (const name of ['steer', 'splice'])
    hash.update(readFileSync(new URL(`../dist/${name}.bpf.o`, import.meta.url)))
  return hash.digest('hex').slice(0, 16)
}
