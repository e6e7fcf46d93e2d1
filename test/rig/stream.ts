import { createCipheriv, createHash } from 'node:crypto'

const zeros = Buffer.alloc(1 << 20)

/**
 * The first `length` bytes of a stream that never repeats and is the same for everybody: AES-128-CTR of zeros under a zero
 * key. `openssl enc -aes-128-ctr` makes the same one in a shell, at more than 1 GB/s.
 */
export function* chunks(length: number): Generator<Buffer> {
  const cipher = createCipheriv('aes-128-ctr', zeros.subarray(0, 16), zeros.subarray(0, 16))
  for (let left = length; left > 0; left -= zeros.length)
    yield cipher.update(left < zeros.length ? zeros.subarray(0, left) : zeros)
}

/** The shell's form of {@link chunks}. */
export function generate(length: number): string {
  const zero = '0'.repeat(32)
  return `head -c ${length} /dev/zero | openssl enc -aes-128-ctr -nosalt -K ${zero} -iv ${zero}`
}

/** SHA-256 of {@link chunks}. */
export function digest(length: number): string {
  const hash = createHash('sha256')
  for (const chunk of chunks(length)) hash.update(chunk)
  return hash.digest('hex')
}
